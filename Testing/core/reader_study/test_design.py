"""The plan of a reader study: crossed, balanced, blinded, and the same again from the same seed."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LNHGLib.errors import InputError
from LNHGLib.reader_study.design import ALPHABET, MAX_REPEATS, Secret, parse_readers, plan
from LNHGLib.reader_study.scores import CT, MODALITIES, SESSIONS

STUDIES = st.tuples(
    st.lists(st.sampled_from([0, 1, None]), min_size=1, max_size=30),
    st.integers(1, 5),
    st.floats(0, MAX_REPEATS),
    st.integers(0, 2**128),
)


def planned(study):
    strata, readers, repeats, seed = study
    return plan(strata, [f"R{number}" for number in range(readers)], repeats, Secret(seed))


@settings(max_examples=40, deadline=None)
@given(study=STUDIES)
def test_every_reader_reads_every_case_once_in_each_modality_and_never_both_in_a_session(study):
    firsts = [read for read in planned(study) if not read.repeat]
    count = Counter((read.reader, read.case, read.modality) for read in firsts)
    assert count == {(f"R{r}", c, m): 1 for r in range(study[1]) for c in range(len(study[0])) for m in MODALITIES}
    sessions = {(read.reader, read.session, read.case, read.modality) for read in planned(study)}
    assert len(sessions) == len(firsts)


@settings(max_examples=40, deadline=None)
@given(study=STUDIES)
def test_the_modality_that_comes_first_is_balanced_for_readers_cases_and_strata(study):
    strata, readers, _, _ = study
    first = [read for read in planned(study) if read.session == SESSIONS[0] and not read.repeat]
    plain = [read for read in first if read.modality == CT]
    for reader in range(readers):
        mine = [read for read in plain if read.reader == f"R{reader}"]
        assert abs(2 * len(mine) - len(strata)) <= 1
        for stratum in set(strata):
            within = sum(strata[read.case] == stratum for read in mine)
            assert abs(2 * within - strata.count(stratum)) <= 1
    for case in range(len(strata)):
        assert abs(2 * sum(read.case == case for read in plain) - readers) <= 1


@settings(max_examples=40, deadline=None)
@given(study=STUDIES)
def test_a_repeat_shows_the_same_again_a_third_of_the_session_later(study):
    strata, readers, repeats, _ = study
    reads = planned(study)
    for reader in {read.reader for read in reads}:
        for session in SESSIONS:
            mine = [read for read in reads if (read.reader, read.session) == (reader, session)]
            assert [read.order for read in mine] == list(range(1, len(mine) + 1))
            first = {(read.case, read.modality): read.order for read in mine if not read.repeat}
            again = [read for read in mine if read.repeat]
            assert len(again) == (min(max(1, round(repeats * len(strata))), len(strata) // 2) if repeats else 0)
            for read in again:
                assert read.order - first[read.case, read.modality] > (len(mine) - 2) // 3
    assert (
        len(
            {frozenset((r.case, r.modality) for r in reads if r.repeat and r.reader == f"R{i}") for i in range(readers)}
        )
        == 1
    )


def test_the_same_seed_gives_the_same_plan_and_another_seed_another_one():
    one, same, other = (plan([0] * 12, ["R1", "R2"], 0.2, Secret(seed)) for seed in (5, 5, 6))
    assert one == same
    assert [read.case for read in one] != [read.case for read in other]
    assert not {read.name for read in one} & {read.name for read in other}
    assert Secret.new().seed.bit_length() > 100
    assert Secret.new() != Secret.new()


def test_two_sessions_and_two_readers_have_orders_of_their_own():
    reads = plan([0] * 20, ["R1", "R2", "R3"], 0, Secret(1))
    orders = {
        tuple(read.case for read in reads if (read.reader, read.session) == key)
        for key in {(read.reader, read.session) for read in reads}
    }
    assert len(orders) == 6


def test_names_are_opaque_different_and_without_words():
    names = Secret(1).names(2000, "reads")
    assert len(set(names)) == 2000
    assert set("".join(names)) == set(ALPHABET)
    assert Secret(1).uid("a").startswith("2.25.")
    assert len(Secret(1).uid("a")) <= 64
    assert Secret(1).uid("a") != Secret(1).uid("b")


def test_readers_are_a_number_or_names():
    assert parse_readers("3") == ["R1", "R2", "R3"]
    assert parse_readers("anna, Ben-2") == ["anna", "Ben-2"]
    for text in ("0", "", "a,,b", "a,A", "../x", "a b", "-a", "a\u00e4"):
        with pytest.raises(InputError, match="expected a number from 1 or different names"):
            parse_readers(text)


@pytest.mark.parametrize("repeats", [-0.1, 0.51, float("nan")])
def test_repeats_outside_their_range_and_studies_without_a_case_are_refused(repeats):
    with pytest.raises(InputError, match="share of repeats"):
        plan([0], ["R1"], repeats, Secret(1))
    with pytest.raises(InputError, match="no case"):
        plan([], ["R1"], 0, Secret(1))
