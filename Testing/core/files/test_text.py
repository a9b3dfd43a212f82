"""CSV, JSON and Markdown: one way each."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from LNHGLib.errors import InputError
from LNHGLib.files.text import csv_text, json_text, markdown_table, read_csv, to_json, write_csv, write_json


def test_csv_has_line_feeds_and_empty_cells_where_nothing_was_measured():
    rows = [{"a": 1.0, "b": "x, y"}, {"a": float("nan"), "b": None}, {"a": np.float32(0.5), "other": 3}]
    assert csv_text(rows, ["a", "b"]) == 'a,b\n1.0,"x, y"\n,\n0.5,\n'


def test_csv_rounds_floats_alone_and_only_when_asked():
    row = {"a": np.float64(1 / 3), "b": 7, "c": True, "d": float("inf")}
    assert csv_text([row], "abcd", decimals=2) == "a,b,c,d\n0.33,7,True,\n"
    assert csv_text([row], "a") == f"a\n{1 / 3!r}\n"


def test_csv_is_read_as_it_was_written_and_as_other_programs_write_it(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, [{"name": "Zoë\nand, others"}], ["name"])
    assert path.read_bytes() == 'name\n"Zoë\nand, others"\n'.encode()
    assert read_csv(path) == [{"name": "Zoë\nand, others"}]
    path.write_bytes("\ufeffname,age\r\nZoë,3\r\n".encode())
    assert read_csv(path) == [{"name": "Zoë", "age": "3"}]


def test_json_takes_numbers_of_numpy_and_paths_and_refuses_what_is_no_number(tmp_path):
    write_json(tmp_path / "a.json", {"n": np.int16(3), "f": np.float32(0.5), "p": Path("ö")})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "n": 3,\n "f": 0.5,\n "p": "ö"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        json_text({"f": float("nan")})


def test_to_json_turns_what_is_no_number_into_null():
    value = {"a": (1, float("inf")), "b": [np.float64("nan"), np.arange(2)], "c": Path("x")}
    assert json.loads(json_text(to_json(value))) == {"a": [1, None], "b": [None, [0, 1]], "c": "x"}


def test_markdown_table_keeps_a_bar_within_its_cell():
    assert markdown_table(["a", "b"], [[1, "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"


FORMULAS = ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", "''+x", "\uff1d1", "+49 30 1234", "-x"]
TEXTS = ["-12.5", "-3", "1e-3", "Nodule 1", "'quoted'", "a=1", "", "\u2013"]


def test_no_cell_begins_as_a_formula_does_and_every_text_is_read_back(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, [{"name": value} for value in FORMULAS + TEXTS], ["name", "=head"])
    with path.open(newline="", encoding="utf-8") as file:
        cells = [row[0] for row in csv.reader(file)][1:]
    assert all(cell[0] == "'" for cell in cells[: len(FORMULAS)])
    assert cells[len(FORMULAS) :] == TEXTS
    assert [row["name"] for row in read_csv(path)] == FORMULAS + TEXTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_are_read_as_spreadsheets_save_them(tmp_path, encoding, delimiter, end):
    lines = [["path", "case"], ["M\u00fcller.nii.gz", "M\u00fcller, J\u00f6rg" if delimiter != "," else "J\u00f6rg"]]
    (tmp_path / "list.csv").write_bytes(end.join(delimiter.join(line) for line in lines).encode(encoding))
    assert [list(row.values()) for row in read_csv(tmp_path / "list.csv")] == lines[1:]


def test_a_list_that_tells_excel_its_separator_is_read_and_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("sep=;\na;b\n1,5;2\n")
    assert read_csv(tmp_path / "list.csv") == [{"a": "1,5", "b": "2"}]
    (tmp_path / "list.csv").write_bytes(b"PK\x03\x04\x00\x00\x81")
    with pytest.raises(InputError, match="is no text"):
        read_csv(tmp_path / "list.csv")


def test_names_whose_bytes_are_no_text_are_written_by_their_numbers(tmp_path):
    write_csv(tmp_path / "table.csv", [{"a": "M\udcfcller"}], ["a"])
    write_json(tmp_path / "file.json", {"a": "M\udcfcller"})
    assert read_csv(tmp_path / "table.csv") == [{"a": "M\\udcfcller"}]
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == {"a": "M\udcfcller"}
