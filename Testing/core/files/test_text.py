"""CSV, JSON and Markdown: one way each."""

import json
from pathlib import Path

import numpy as np
import pytest
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
