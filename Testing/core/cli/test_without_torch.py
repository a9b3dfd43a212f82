"""Everything that a CPU user does, on a computer with OpenVINO and without PyTorch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from LNHGLib import packages
from LNHGLib.batch.store import DONE
from LNHGLib.image.volume import write_image
from tiny_model import centers_lps_mm, tiny_chest, write_model

pytestmark = pytest.mark.slow

CORE = Path(packages.__file__).parents[1]
BLOCKER = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None  # as if they were not installed, in child processes too
"""
CHILD = """
import json, sys
from LNHGLib.__main__ import main
for arguments in json.loads(sys.argv[1]):
    print("STATUS", main(arguments), flush=True)
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A CT, a model and a folder that keeps torch from being imported."""
    folder = tmp_path_factory.mktemp("without torch")
    write_model(folder / "tiny", second=True, classifier=True)
    chest = tiny_chest()
    (folder / "scans").mkdir()
    write_image(chest.array, chest.grid, folder / "scans" / "ct.nii.gz")
    (folder / "blocker").mkdir()
    (folder / "blocker" / "sitecustomize.py").write_text(BLOCKER)
    return folder


def run(workplace: Path, *commands) -> subprocess.CompletedProcess:
    """Run commands one after the other in one process."""
    search = os.pathsep.join([str(workplace / "blocker"), str(CORE)])
    environment = {**os.environ, "PYTHONPATH": search, "LNHG_MODELS": str(workplace / "models")}
    arguments = json.dumps([[str(each) for each in command] for command in commands])
    command = [sys.executable, "-c", CHILD, arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def statuses(done: subprocess.CompletedProcess) -> list[str]:
    return [line.removeprefix("STATUS ") for line in done.stdout.splitlines() if line.startswith("STATUS ")]


def test_scans_are_segmented_reported_and_shown_to_readers(workplace):
    ct, model = workplace / "scans" / "ct.nii.gz", ["--model", workplace / "tiny"]
    place = ",".join(f"{value:.1f}" for value in centers_lps_mm(tiny_chest())[0])
    done = run(
        workplace,
        ["devices"],
        ["models", "list"],
        ["models", "verify", workplace / "tiny"],
        ["segment", ct, workplace / "out", "--threshold", "0", *model],
        ["segment", ct, workplace / "at", f"--at={place}", *model],
        ["report", workplace / "out", workplace / "report", "--only", "csv,page"],
        ["reader-study", "export", workplace / "out", workplace / "study", "--readers", "2"],
        ["batch", workplace / "scans", workplace / "cohort", "--threshold", "0", *model],
    )
    assert statuses(done) == ["0"] * 8, done.stdout + done.stderr
    assert "networks run by openvino " in done.stdout
    for name in ("out", "at"):
        report = json.loads((workplace / name / "report.json").read_text())
        assert report["device"]["runtime"] == "openvino"
        assert report["nodules"]
    assert (workplace / "report" / "report.pdf").exists()
    assert DONE in (workplace / "cohort" / "cases.csv").read_text()


def test_what_needs_torch_is_refused_in_one_sentence_with_the_cure(workplace):
    ct, out, model = workplace / "scans" / "ct.nii.gz", workplace / "new", ["--model", workplace / "tiny"]
    other = json.loads((workplace / "tiny" / "model.json").read_text())
    other["detector"]["backbone"] = "resnet50-fpn"
    (workplace / "other").mkdir(exist_ok=True)
    for path in (workplace / "tiny").iterdir():
        (workplace / "other" / path.name).write_bytes(path.read_bytes())
    (workplace / "other" / "model.json").write_text(json.dumps(other))
    done = run(
        workplace,
        ["segment", ct, out, "--runtime", "torch", *model],
        ["segment", ct, out, "--device", "cuda:0", *model],
        ["segment", ct, out, "--model", workplace / "other"],
    )
    assert statuses(done) == ["2"] * 3, done.stdout + done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("lnhg: ")]
    assert [line.partition(" needs it")[0] for line in sentences] == [
        "lnhg: PyTorch is not installed, and --runtime torch",
        "lnhg: PyTorch is not installed, and device 'cuda:0'",
        "lnhg: PyTorch is not installed, and model 'tiny'",
    ]
    assert all("in Slicer install it under Set-up" in line for line in sentences)
    assert not out.exists()
