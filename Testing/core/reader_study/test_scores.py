"""The score table of a reader study: what is written is read back, and every fault is named with its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from LNHGLib.errors import InputError
from LNHGLib.reader_study import scores as study_scores
from LNHGLib.reader_study.scores import CT, CT_MAP, Score

NAMES = st.text("abcXYZ019-_, \"'\u00e4", min_size=1, max_size=12).map(str.strip).filter(bool)
SCORES = st.builds(
    Score,
    reader=NAMES,
    case=NAMES,
    modality=st.sampled_from([CT, CT_MAP]),
    score=st.none() | st.integers(0, 1000).map(lambda tenth: tenth / 10),
    confidence=st.none() | st.integers(1, 5),
    seconds=st.none() | st.integers(0, 9_999_999).map(lambda ms: ms / 1000),
    session=st.integers(1, 2),
    order=st.integers(1, 999),
    repeat=st.booleans(),
)
DISTINCT = st.lists(
    SCORES,
    min_size=1,
    max_size=8,
    unique_by=(lambda s: (s.reader, s.session, s.order), lambda s: (s.reader, s.case, s.modality)),
)
HEAD = ",".join(study_scores.COLUMNS)
GOOD = "R1,A,CT,50,3,12.5,1,1,0"


def written(tmp_path, *lines, head=HEAD):
    path = tmp_path / "scores.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


@given(scores=DISTINCT)
def test_what_is_written_is_read_back(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    study_scores.write_scores(path, scores, {"image": ["x"] * len(scores)})
    assert study_scores.read_scores(path, complete=False) == scores


def test_spreadsheets_may_add_a_mark_columns_and_blank_lines(tmp_path):
    path = tmp_path / "scores.csv"
    head, row = HEAD.split(","), GOOD.split(",")
    lines = [",".join(["note", *head[::-1]]), ",".join(["x", *row[::-1]]), "," * len(head), ""]
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert study_scores.read_scores([path]) == [Score("R1", "A", "CT", 50.0, 3, 12.5, 1, 1, False)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("R1,A,CT,101,3,1,1,2,0", "score '101', expected a number from 0 to 100"),
        ("R1,A,CT,nan,3,1,1,2,0", "score 'nan'"),
        ("R1,A,CT,,3,1,1,2,0", "no score"),
        ("R1,A,CT,5,2.5,1,1,2,0", "confidence '2.5', expected a whole number from 1 to 5"),
        ("R1,A,CT,5,3,-1,1,2,0", "seconds '-1', expected a number of 0 or more"),
        ("R1,A,CT,5,3,1,0,2,0", "session '0'"),
        ("R1,A,CT,5,3,1,1,,0", "no order"),
        ("R1,A,CT,5,3,1,1,2,yes", "repeat 'yes'"),
        ("R1,,CT,5,3,1,1,2,0", "no caseID"),
        ("R1,A,CT,5,3,1,2,1,0", "same read as"),
        ("R1,B,CT,5,3,1,1,1,0", "same place in the order as"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path, row, words):
    with pytest.raises(InputError, match=r"line 3") as error:
        study_scores.read_scores(written(tmp_path, GOOD, row))
    assert words in str(error.value)


def test_a_repeat_is_no_second_copy(tmp_path):
    scores = study_scores.read_scores(written(tmp_path, GOOD, "R1,A,CT,60,3,1,1,2,1"))
    assert [score.repeat for score in scores] == [False, True]


def test_files_without_reads_or_columns_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no read"):
        study_scores.read_scores(written(tmp_path))
    with pytest.raises(InputError, match="no column seconds"):
        study_scores.read_scores(written(tmp_path, head=HEAD.replace("seconds", "time")))
    with pytest.raises(InputError, match="cannot be read"):
        study_scores.read_scores(tmp_path / "missing.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="has no column readerID"):
        study_scores.read_scores(tmp_path / "picture.csv")


def test_a_long_value_is_shortened_where_it_is_named(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("caseID,truth\nA," + "a" * 5000 + "\n")
    with pytest.raises(InputError, match=r"has truth 'a+\.\.\.a+' for case 'A'") as refused:
        study_scores.read_truth(path)
    assert len(str(refused.value)) < 200 + len(str(path))


def test_truth_is_read_back_and_wrong_truth_is_refused(tmp_path):
    path = tmp_path / "truth.csv"
    study_scores.write_truth(path, {"A": 1, "B": 0})
    assert study_scores.read_truth(path) == {"A": 1, "B": 0}
    for lines in ("A,1\nA,1", "A,2", ",1", "A,"):
        path.write_text(f"caseID,truth\n{lines}\n")
        with pytest.raises(InputError, match="expected 0 or 1 once a case"):
            study_scores.read_truth(path)
