"""What a command does whose arguments are empty, whose names are too long, or whose output nobody reads."""

import errno
import os
import subprocess
import sys

import pytest
from LNHGLib.__main__ import main
from LNHGTrainingLib.__main__ import main as train

LNHG = [sys.executable, "-m", "LNHGLib"]


@pytest.mark.parametrize("empty", ["", " ", "\t"])
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["segment", "EMPTY", "out"], "CT"),
        (["segment", "ct.nii", "EMPTY"], "OUT"),
        (["segment", "ct.nii", "out", "--model", "EMPTY"], "--model"),
        (["batch", "EMPTY", "out"], "INPUT"),
        (["batch", "in", "EMPTY", "out"], "INPUT"),
        (["report", "EMPTY", "out"], "RESULT"),
        (["report", "result", "out", "--dicom", "EMPTY"], "--dicom"),
        (["reader-study", "export", "EMPTY", "study"], "RESULTS"),
        (["demo", "EMPTY"], "OUT"),
    ],
)
def test_an_empty_argument_is_refused_by_its_name(arguments, name, empty, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([empty if argument == "EMPTY" else argument for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lnhg: {name} is empty, expected ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", ["\f", "\v", "\x1b[2J", "\x85", "\u2028", "\r"])
def test_a_sentence_stays_one_line_whatever_it_quotes(end, tmp_path, capsys):
    table = tmp_path / "list.csv"
    table.write_bytes(f'"pa{end}th",case\nct.nii,a\n'.encode())
    for command in (lambda *words: main(["batch", *words]), lambda *words: train(["prepare", "pairs", *words])):
        assert command(str(table), str(tmp_path / "out")) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert line.startswith("lnhg")
        assert "\x1b" not in line


def test_an_empty_argument_of_the_training_is_refused_by_its_name(capsys):
    assert train(["prepare", "pairs", "", "out"]) == 2
    assert "INPUT is empty, expected " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["segment", "CT", "LONG"], ["segment", "LONG", "out"], ["report", ".", "LONG"]])
def test_a_name_that_is_too_long_is_refused_in_one_sentence(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CT").touch()
    assert main(["x" * 300 if argument == "LONG" else argument for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "A name of 300 bytes is longer than the file system takes (" in line


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ESTALE])
def test_a_file_that_goes_away_or_is_closed_is_named_in_one_sentence(number, tmp_path, monkeypatch, capsys):
    def read_what_went_away(*_arguments, **_options):
        raise OSError(number, os.strerror(number), str(tmp_path / "gone"))

    (tmp_path / "result").mkdir()
    (tmp_path / "list.csv").write_text("ct,mask\na,b\n")
    monkeypatch.setattr("LNHGLib.report.write.write_report", read_what_went_away)
    monkeypatch.setattr("LNHGTrainingLib.prepare.ct_mask_pairs.csv_reader", read_what_went_away)
    out = str(tmp_path / "out")
    assert main(["report", str(tmp_path / "result"), out]) == 2
    assert train(["prepare", "pairs", str(tmp_path / "list.csv"), out]) == 2
    for line in capsys.readouterr().err.strip().splitlines():
        assert f"{tmp_path / 'gone'} cannot be used ({os.strerror(number)}), expected it" in line
        assert line.endswith("; check it and try again.")


@pytest.mark.parametrize("program", [main, train])
@pytest.mark.parametrize(
    "words", [["x" * 300], ["segment", "CT", "out", "--device", "y z " * 100], ["batch", "--q" * 200]]
)
def test_a_long_argument_is_quoted_shortened(program, words, capsys):
    assert program(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 450
    assert "x" * 70 not in line


@pytest.mark.parametrize(
    "arguments", [["segment", "CT", "M\udcfc"], ["demo", "M\udcfc/out"], ["report", ".", "M\udcfc"]]
)
def test_an_output_whose_name_is_no_text_is_refused(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CT").touch()
    assert main(arguments) == 2
    assert "are no text in UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&- <&-", "| true", "> /dev/full"])
def test_closed_output_ends_no_command(closed, tmp_path):
    if "/dev/full" in closed and not os.path.exists("/dev/full"):  # noqa: PTH110 - a device
        pytest.skip("this system has no /dev/full")
    line = f'{{ {" ".join(LNHG)} --help; echo "$?" > status; }} {closed}'
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (tmp_path / "status").read_text().strip() == "0"
