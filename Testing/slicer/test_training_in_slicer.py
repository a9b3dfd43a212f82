"""Training in a Python 3.12 with what Slicer 5.12 and the PyTorch extension bring, after the documented call."""

import slicer_host

slicer_host.start()

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import scan_trees
from LNHGLib.setup import package_list
from tiny_model import write_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BROUGHT = ROOT / "Testing" / "data" / "slicer-5.12-packages.txt"
UNREACHABLE = re.compile(
    r"error sending request|dns error|[Cc]ould not connect|timed out|does not reach the package index"
)
FREE_GB = 8


def find_python() -> Path:
    """Return a Python 3.12 that can make a virtual environment with pip."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = shutil.which("python3.12")
    for python in (*sorted(pyenv.glob("versions/3.12.*/bin/python")), *([Path(on_path)] if on_path else [])):
        works = subprocess.run(
            [python, "-c", "import ensurepip, sys; assert sys.version_info[:2] == (3, 12)"], check=False
        )
        if works.returncode == 0:
            return python
    pytest.skip("there is no Python 3.12 here, as 3D Slicer 5.12 has")


def find_uv() -> str:
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    if not Path(uv).exists():
        pytest.skip("uv is not here, which brings PyTorch without downloading it again: run make setup")
    return uv


def torch_of_the_development_environment() -> list[str]:
    """Return the versions whose other parts are in uv's cache already."""
    pins = dict(re.findall(r"^([\w-]+)==([^\s;]+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE))
    return [f"{package.name}=={pins[package.name]}" for package in package_list.TORCH]


class Slicer:
    """Runs commands as `LNHGTrainingLogic` does, in the Python that plays PythonSlicer."""

    def __init__(self, python: Path) -> None:
        import LNHGTraining

        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LNHG", "VIRTUAL"))
        }
        self.python, self.logic = python, LNHGTraining.LNHGTrainingLogic(python=str(python))
        self.environment = clean | self.logic.environment()

    def run(self, command: list) -> subprocess.CompletedProcess:
        words = [str(word) for word in command]
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)

    def train(self, *arguments) -> subprocess.CompletedProcess:
        """`PythonSlicer -m LNHGTrainingLib` with arguments."""
        return self.run(self.logic.command(list(arguments)))

    def packages(self, *arguments: str) -> subprocess.CompletedProcess:
        """`PythonSlicer -m LNHGLib.packages` with arguments."""
        return self.run([self.python, "-m", "LNHGLib.packages", *arguments])

    def versions(self) -> dict[str, str]:
        listed = self.run([self.python, "-m", "pip", "list", "--format=freeze"]).stdout
        return dict(line.split("==") for line in listed.splitlines() if "==" in line)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Slicer's Python before anything of ours was installed, and torch as the PyTorch extension leaves it."""
    python, uv, folder = find_python(), find_uv(), tmp_path_factory.mktemp("slicer")
    if shutil.disk_usage(folder).free < FREE_GB * 1e9:
        pytest.skip(f"less than {FREE_GB} GB are free in {folder}")
    subprocess.run([python, "-m", "venv", folder / "python"], check=True)
    slicer = Slicer(folder / "python" / "bin" / "python")
    brought = ["-r", BROUGHT, *torch_of_the_development_environment()]
    done = slicer.run([uv, "pip", "install", "--quiet", "--python", slicer.python, *brought])
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    yield slicer
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def before(bare):
    return bare.versions(), bare.train("prepare", "lidc", BROUGHT.parent, "not written")


@pytest.fixture(scope="module")
def installed(bare, before):
    """The same after the documented call."""
    done = bare.packages("install", "training", "--yes")
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return bare


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Three tiny scans of LIDC-IDRI's kind, and a model."""
    folder = tmp_path_factory.mktemp("work")
    for number in range(3):
        readers = scan_trees.four_readers((12, 28 + number, 30), 5.0)
        scan_trees.write_lidc_scan(folder / "lidc", f"P{number}", f"1.2.{number}", readers, seed=number)
    write_model(folder / "model", grid={"kind": "spacing", "spacing_mm": [1.0, 1.0, 1.0]})
    return folder


def test_before_the_call_one_sentence_names_it(before):
    _versions, done = before
    assert done.returncode == 1
    assert done.stderr == (
        "lnhg-train: h5py is not installed: run python -m LNHGLib.packages install training, in 3D Slicer by "
        "PythonSlicer.\n"
    )


def test_the_documented_call_installs_what_training_needs_and_changes_nothing_else(before, installed):
    versions, _done = before
    now = installed.versions()
    assert {"h5py", "tqdm", "matplotlib", "safetensors", "scikit-image"} <= now.keys() - versions.keys()
    assert {name: now.get(name) for name in versions} == versions
    assert installed.packages("check", "training").returncode == 0


def test_prepare_train_evaluate_and_crossvalidate_run(installed, work):
    """One step a fold, and one of the detector, which needs torchvision."""
    data, config = work / "data", ROOT / "LNHGTraining" / "Resources"
    tiny = [
        *("steps=1", "epoch_steps=1", "batch=1", "validate_crops=1", "data.background=[]"),
        *('data.crops="volumes.h5"', 'data.table="folds.csv"'),
    ]
    networks = {
        "segmenter": ["generator.width=2", "critic.width=2", "sampling.sides=[[16, 16, 16]]"],
        "detector": ["detector.width=4", "sampling.tile=32"],
    }

    def training(branch: str, fold: int) -> list:
        changes = [word for change in (*tiny, *networks[branch]) for word in ("--set", change)]
        words = ["train", branch, "--config", config / f"{branch}.toml", *changes, "--fold", fold]
        return [*words, "--data", data, work / f"{branch}-{fold}"]

    crops = "--crops", data / "volumes.h5", "--table", data / "folds.csv", "--device", "cpu"
    checkpoints = [work / f"segmenter-{fold}" / "last.pt" for fold in (0, 1)]
    for command in (
        ["prepare", "lidc", work / "lidc", data],
        ["folds", data / "manifest.csv", data / "folds.csv", "--folds", "2"],
        training("segmenter", 0),
        training("segmenter", 1),
        training("detector", 0),
        ["evaluate", "--model", work / "model", *crops, work / "evaluated"],
        ["crossvalidate", *checkpoints, work / "crossvalidated", "--name", "tiny", *crops],
    ):
        done = installed.train(*command)
        assert done.returncode == 0, done.stderr
    assert (work / "detector-0" / "best.pt").is_file()
    assert (work / "evaluated" / "summary.json").is_file()
    assert (work / "crossvalidated" / "summary.json").is_file()
    assert not list(work.glob("*/tensorboard"))
