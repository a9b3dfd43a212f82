"""Fixtures and guards for all tests."""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the tests themselves run in parallel
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command lines do

CACHE = tempfile.TemporaryDirectory(prefix="lnhg-test-cache-")  # goes when the tests end
os.environ.setdefault("LNHG_CACHE", CACHE.name)

ROOT = Path(__file__).parents[1]

# Set by the libraries themselves when they are first imported.
TOLERATED_VARIABLES = (
    "PYTEST_",
    "PYSIDE6_",
    "QT_",
    "VTK_",
    "KMP_",
    "TORCH",
    "TRITON",
    "CUDA_MODULE_LOADING",
    "CUBLAS_",
    "TF_",
    "ME_DSL_",  # blosc2, which nnU-Net brings
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that writes the golden files anew."""
    parser.addoption(
        "--regenerate-golden", action="store_true", help="write the files under Testing/data anew instead of comparing"
    )


@pytest.fixture(scope="session")
def regenerate_golden(request: pytest.FixtureRequest) -> bool:
    """Return whether golden files are to be written instead of compared with."""
    return request.config.getoption("--regenerate-golden")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real data: $LNHG_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("LNHG_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set LNHG_DATA to the folder that holds crops, ct and background")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, saying what it lacks."""
    if item.get_closest_marker("slicer") and importlib.util.find_spec("slicer") is None:
        pytest.skip("slicer-core is not installed: run make setup")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def environment_is_left_as_found() -> Iterator[None]:
    """Fail a test that leaves environment variables changed, and put them back."""
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    leaked = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    leaked = [name for name in leaked if not name.startswith(TOLERATED_VARIABLES)]
    for name in leaked:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    assert not leaked, f"the test left environment variables changed: {', '.join(leaked)}"


@pytest.fixture(autouse=True)
def working_folder_is_left_as_found() -> Iterator[None]:
    """Fail a test that leaves another working folder behind, and go back."""
    before = Path.cwd()
    yield
    after = Path.cwd()
    os.chdir(before)
    assert after == before, f"the test left the working folder changed to {after}"


@pytest.fixture(autouse=True)
def process_group_is_closed() -> Iterator[None]:
    """Fail a test that leaves a torch process group open, and close it."""
    yield
    distributed = sys.modules.get("torch.distributed")
    leaked = distributed is not None and distributed.is_available() and distributed.is_initialized()
    if leaked:
        distributed.destroy_process_group()
    assert not leaked, "the test left a torch.distributed process group open"
