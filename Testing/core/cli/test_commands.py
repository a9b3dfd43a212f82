"""The command line: exit status, one sentence, nothing half-written, progress and cancelling."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LNHGLib import __main__ as cli
from LNHGLib.cli import console
from LNHGLib.errors import Cancelled, WorkError
from LNHGLib.image.volume import write_image
from LNHGLib.models import folder
from LNHGLib.results.writer import FILES
from LNHGLib.segmentation import pipeline
from tiny_model import centers_lps_mm, tiny_chest, with_stand_ins, write_model

CORE = Path(cli.__file__).parents[1]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def model_folder(workplace):
    return write_model(workplace / "tiny").folder


@pytest.fixture(scope="module")
def ct(workplace):
    chest = tiny_chest()
    write_image(chest.array, chest.grid, workplace / "ct.nii.gz")
    return workplace / "ct.nii.gz"


@pytest.fixture(autouse=True)
def own_models(tmp_path, monkeypatch):
    monkeypatch.setenv("LNHG_MODELS", str(tmp_path / "user-models"))
    monkeypatch.setattr(folder, "BUNDLED", tmp_path / "bundled")


@pytest.fixture
def blob_detector(monkeypatch):
    """Let the command line's model use the stand-in that finds bright blobs."""
    load = folder.load
    monkeypatch.setattr(folder, "load", lambda name=None: with_stand_ins(load(name)))


def lnhg(*arguments):
    return cli.main([str(argument) for argument in arguments])


def complaint(capsys):
    """What went to stderr: exactly one sentence, without traceback."""
    lines = capsys.readouterr().err.strip().splitlines()
    sentences = [line for line in lines if line.startswith("lnhg: ")]
    assert len(sentences) == 1
    assert "Traceback" not in "".join(lines)
    return sentences[0]


@pytest.fixture(scope="module")
def written(ct, model_folder, workplace):
    """A run in a process of its own, with the detector's random weights."""
    out = workplace / "out"
    command = [
        sys.executable,
        "-m",
        "LNHGLib",
        "segment",
        ct,
        out,
        "--model",
        model_folder,
        "--json",
        "--threshold",
        "0",
    ]
    done = subprocess.run(list(map(str, command)), cwd=CORE, capture_output=True, text=True, check=False)
    return done, out


def test_segment_ends_well_and_writes_every_file_of_the_contract(written):
    done, out = written
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)


def test_progress_lines_rise_to_one(written):
    lines = written[0].stdout.strip().splitlines()
    parsed = [re.fullmatch(r"PROGRESS (\d\.\d\d) (.+)", line) for line in lines]
    assert all(parsed)
    fractions = [float(match[1]) for match in parsed]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)


def test_the_label_map_holds_the_tables_segmentations_and_no_box(written):
    out = written[1]
    with (out / "nodules.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "labelmap.nii.gz")))
    segmented = {int(row["number"]) for row in rows if row["provenance"] != "detector-box"}
    assert set(np.unique(labels)) - {0} == segmented
    assert segmented


def test_the_label_map_lies_where_the_ct_lies(written, ct):
    a, b = sitk.ReadImage(str(ct)), sitk.ReadImage(str(written[1] / "labelmap.nii.gz"))
    assert a.GetSize() == b.GetSize()
    np.testing.assert_allclose(a.GetOrigin() + a.GetDirection(), b.GetOrigin() + b.GetDirection(), atol=1e-4)


def test_the_report_has_the_timings_of_every_stage(written):
    report = json.loads((written[1] / "report.json").read_text())
    stages = ["read", "lungs", "grid", "generator", "detector", "fusion", "ensemble", "measurement"]
    assert list(report["seconds"]) == stages
    assert report["options"]["threshold"] == 0


def test_people_get_stages_on_stderr_and_a_count_on_stdout(ct, model_folder, tmp_path, capsys, blob_detector):
    assert lnhg("segment", ct, tmp_path / "out", "--model", model_folder, "--device", "cpu") == 0
    told = capsys.readouterr()
    assert told.out == f"3 nodules in {ct}; results are in {tmp_path / 'out'}\n"
    assert "Finding the lungs" in told.err
    assert "PROGRESS" not in told.out


def test_overwrite_replaces_earlier_results(ct, model_folder, tmp_path, blob_detector):
    out = tmp_path / "out"
    assert lnhg("segment", ct, out, "--model", model_folder) == 0
    (out / "preview.png").write_bytes(b"old")
    assert lnhg("segment", ct, out, "--model", model_folder) == 2
    assert (out / "preview.png").read_bytes() == b"old"
    assert lnhg("segment", ct, out, "--model", model_folder, "--overwrite") == 0
    assert (out / "preview.png").read_bytes() != b"old"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required"),
        (["fly"], "invalid choice"),
        (["segment", "CT"], "OUT"),
        (["segment", "CT", "NEW", "--threshold", "1.5"], "the threshold is 1.5, expected a score from 0 to 1"),
        (["segment", "CT", "NEW", "--threshold", "nan"], "the threshold is nan"),
        (["segment", "CT", "NEW", "--device", "gpu"], "expected auto, cpu, cuda or cuda:N"),
        (["segment", "CT", "NEW", "--device", "cuda:77"], "'cuda:77' is not there"),
        (["segment", "CT", "NEW", "--model", "other"], "'other' is neither a known model"),
        (["segment", "MISSING", "NEW"], "does not exist"),
        (["segment", "CT", "FOLDER"], "already exists"),
        (["segment", "CT", "FOLDER", "--overwrite"], "'thesis.txt', which this command does not write"),
        (["segment", "CT", "CT"], "holds the CT itself"),
        (["segment", "CT", "UNDER_FILE"], "cannot be written"),
        (["segment", "EMPTY", "NEW"], "is empty"),
    ],
)
def test_wrong_arguments_end_with_2_and_one_sentence_and_nothing_written(
    arguments, words, ct, model_folder, tmp_path, capsys
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("precious")
    (tmp_path / "empty.nii.gz").touch()
    paths = {
        "CT": ct,
        "NEW": tmp_path / "new",
        "MISSING": tmp_path / "no.nii.gz",
        "FOLDER": tmp_path / "folder",
        "UNDER_FILE": tmp_path / "empty.nii.gz" / "out",
        "EMPTY": tmp_path / "empty.nii.gz",
    }
    model = [] if "--model" in arguments or len(arguments) < 3 else ["--model", model_folder]
    assert lnhg(*[paths.get(argument, argument) for argument in arguments], *model) == 2
    assert words in complaint(capsys)
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.nii.gz", "folder"]


def test_a_folder_that_holds_the_ct_is_never_replaced(ct, model_folder, tmp_path, capsys):
    scan = Path(shutil.copy(ct, tmp_path))
    assert lnhg("segment", scan, tmp_path, "--model", model_folder, "--overwrite") == 2
    assert "holds the CT itself" in complaint(capsys)
    assert scan.exists()


def test_a_changed_model_is_refused_before_anything_is_computed(ct, model_folder, tmp_path, capsys, monkeypatch):
    copy = Path(shutil.copytree(model_folder, tmp_path / "changed"))
    (copy / "detector.safetensors").write_bytes(b"changed")
    monkeypatch.setattr(pipeline, "segment", lambda *_, **__: pytest.fail("computed"))
    assert lnhg("segment", ct, tmp_path / "new", "--model", copy) == 2
    assert "was changed" in complaint(capsys)


def test_an_unexpected_failure_ends_with_1_in_one_sentence(ct, model_folder, tmp_path, capsys, monkeypatch):
    def fail(*_args, **_options):
        raise RuntimeError("the disk\nburns")

    monkeypatch.setattr(pipeline, "segment", fail)
    assert lnhg("segment", ct, tmp_path / "new", "--model", model_folder) == 1
    assert "RuntimeError: the disk burns" in complaint(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 9.31 GiB"), "does not suffice (Unable to allocate 9.31 GiB); close"),
        (ImportError("libcudnn.so.9: cannot open"), "(libcudnn.so.9: cannot open); in Slicer press Repair"),
        (WorkError("The disk is full; make room."), "lnhg: The disk is full; make room."),
    ],
)
def test_what_the_computer_lacks_is_told_with_the_cure(ct, model_folder, tmp_path, capsys, monkeypatch, error, words):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(pipeline, "segment", fail)
    assert lnhg("segment", ct, tmp_path / "new", "--model", model_folder) == 1
    assert words in complaint(capsys)
    assert not (tmp_path / "new").exists()


def test_what_cannot_write_is_told_before_work(ct, model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "LNHGLib.results.writer", None)
    monkeypatch.setattr(pipeline, "detect_boxes", lambda *_, **__: pytest.fail("computed"))
    assert lnhg("segment", ct, tmp_path / "new", "--model", model_folder) == 1
    assert "a Python package does not load" in complaint(capsys)
    assert not (tmp_path / "new").exists()


def test_the_cancel_file_stops_the_work_with_1_and_leaves_nothing(
    ct, model_folder, tmp_path, capsys, monkeypatch, blob_detector
):
    wish = tmp_path / "cancel"
    monkeypatch.setenv(console.CANCEL_FILE, str(wish))
    segment = pipeline.segment

    def slowly(*arguments, progress, **options):
        def wait(fraction, text):
            progress(fraction, text)
            if fraction > 0.1:
                wish.touch()
                time.sleep(0.3)

        return segment(*arguments, progress=wait, **options)

    monkeypatch.setattr(pipeline, "segment", slowly)
    assert lnhg("segment", ct, tmp_path / "new", "--model", model_folder) == 1
    assert "cancelled by the user" in complaint(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["cancel"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_and_its_former_handler_comes_back(number):
    before = signal.getsignal(number)
    stop = console.Stop()

    def work():
        with stop.listening():
            os.kill(os.getpid(), number)
            time.sleep(5)

    with pytest.raises(Cancelled):
        work()
    assert stop.wished()
    assert signal.getsignal(number) is before


DEAF = """
import hashlib
from LNHGLib.cli.console import Stop
with Stop().listening():
    while True:
        try:
            print("busy", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        except BaseException:
            print("refused to end", flush=True)
"""


def test_even_a_computation_that_hears_nothing_is_ended_by_the_cancel_file(tmp_path):
    environment = {**os.environ, console.CANCEL_FILE: str(tmp_path / "cancel")}
    child = subprocess.Popen(
        [sys.executable, "-c", DEAF],
        cwd=CORE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "busy\n"
        (tmp_path / "cancel").touch()
        _, told = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 1
    assert told == "lnhg: cancelled by the user.\n"


def test_models_are_listed_added_shown_and_verified(model_folder, capsys):
    assert lnhg("models", "add", model_folder) == 0
    assert lnhg("models") == 0
    assert lnhg("models", "list") == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("tiny added to ")
    assert second == third
    assert second.split()[0] == "tiny"
    assert lnhg("models", "show", "tiny") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"
    assert lnhg("models", "verify", "tiny") == 0
    assert "2 files as listed" in capsys.readouterr().out


def test_a_damaged_model_does_not_verify(model_folder, tmp_path, capsys):
    copy = Path(shutil.copytree(model_folder, tmp_path / "damaged"))
    (copy / "generator.safetensors").unlink()
    assert lnhg("models", "verify", copy) == 2
    assert "generator.safetensors is missing" in complaint(capsys)


def test_help_loads_nothing_that_takes_long():
    code = "import sys, LNHGLib.__main__ as cli; cli.parse(['models']); print(*{'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CORE, capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_help_and_version_end_well(capsys):
    for arguments in (["--help"], ["segment", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
    assert "lnhg 0." in capsys.readouterr().out


def test_the_demo_prints_a_table_and_ends_with_the_picture(model_folder, tmp_path, capsys, monkeypatch):
    from LNHGLib.image.volume import Source, Volume
    from LNHGLib.phantom import chest as phantom

    chest = tiny_chest()
    labels = np.zeros(chest.array.shape, np.uint8)
    labels[26, 46, 44 - 20 : 44 + 20] = 1
    center = tuple(centers_lps_mm(chest)[0])
    truth = [{"label": 1, "kind": "solid", "diameter_mm": 16.0, "center_lps_mm": center, "hu": 40}]
    volume = Volume(chest.array, chest.grid, Source("synthetic chest CT"))
    monkeypatch.setattr(phantom, "make_phantom", lambda: phantom.Phantom(volume, labels, truth))
    load = folder.load
    monkeypatch.setattr(folder, "load", lambda name=None: with_stand_ins(load(name)))
    for _ in range(2):  # a second demo replaces the first
        assert lnhg("demo", tmp_path / "demo", "--model", model_folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "no patient" in lines[0]
    assert lines[-1] == str(tmp_path / "demo" / "preview.png")
    assert lines[-2] == "1 of 1 synthetic nodules found."
    assert sum(line.endswith("solid, 16 mm") for line in lines) == 2
    assert Path(lines[-1]).is_file()
