"""What the command line loads before it begins: counted in modules, as clocks depend on what else the computer does."""

import subprocess
import sys
from pathlib import Path

import pytest
from LNHGLib import packages
from LNHGLib.image.volume import write_image
from tiny_model import tiny_chest, write_model

CORE = Path(packages.__file__).parents[1]
LARGE = (
    "numpy",
    "scipy",
    "SimpleITK",
    "pydicom",
    "matplotlib",
    "openvino",
    "torch",
    "torchvision",
    "skimage",
    "highdicom",
)
NOT_TO_READ = {"matplotlib", "torch", "torchvision", "skimage", "highdicom", "LNHGLib.segmentation.pipeline"}
NEVER = {"torch", "torchvision", "skimage", "highdicom"}

CHILD = """
import sys
from LNHGLib import __main__ as cli

def note(when):
    print("LOADED", when, *sorted(name for name in sys.modules if name in {large}))

class Reader:
    "Notes what is loaded when the module that reads is about to be, and what when the CT has been read."
    def find_spec(self, name, _path=None, _target=None):
        if name == "LNHGLib.image.reader":
            note("before reading")

sys.meta_path.insert(0, Reader())
try:
    status = cli.main(sys.argv[1:])
except SystemExit as end:
    status = end.code
note("at the end")
print("STATUS", status)
"""


def loaded(*arguments) -> dict[str, set[str]]:
    """Run a command in a process of its own; return the large modules that are loaded, by moment."""
    code = CHILD.replace("{large}", repr({*LARGE, *NOT_TO_READ}))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=CORE, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[-1] in ("STATUS 0", "STATUS None"), done.stdout + done.stderr
    told = (line.removeprefix("LOADED ") for line in lines if line.startswith("LOADED "))
    moments = ("before reading", "at the end")
    return {
        moment: set(line.removeprefix(moment).split()) for line in told for moment in moments if line.startswith(moment)
    }


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["--version"], ["models", "list"]], ids=str)
def test_help_and_lists_load_no_large_package(arguments):
    assert loaded(*arguments)["at the end"] == set()


def test_devices_load_openvino_alone():
    assert loaded("devices", "--json")["at the end"] <= {"numpy", "scipy", "openvino"}


@pytest.mark.slow
def test_a_ct_is_read_before_what_finds_and_draws_is_loaded_and_torch_is_never(tmp_path):
    model, chest = write_model(tmp_path / "tiny").folder, tiny_chest()
    write_image(chest.array, chest.grid, tmp_path / "ct.nii.gz")
    where = ["--device", "cpu", "--runtime", "openvino", "--model", model]
    moments = loaded("segment", tmp_path / "ct.nii.gz", tmp_path / "out", *where)
    assert moments["before reading"].isdisjoint(NOT_TO_READ)
    assert moments["at the end"].isdisjoint(NEVER)
    assert moments["at the end"] >= {"openvino", "matplotlib"}


@pytest.mark.parametrize(("arguments", "status"), [(["models", "list"], 0), (["segment", "no-such.nii", "out"], 2)])
def test_the_process_ends_at_once_with_its_status_after_what_is_registered(arguments, status):
    program = f"""
import atexit, sys
from LNHGLib.__main__ import command

class Slow:
    def __del__(self):
        print("torn down")

slow, sys.argv = Slow(), ["lnhg", *{arguments}]
atexit.register(print, "registered", flush=True)
command()
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=CORE, capture_output=True, text=True, timeout=60)
    assert ended.returncode == status
    assert ended.stdout.endswith("registered\n")
    assert ("no-such.nii does not exist" in ended.stderr) == (status == 2)
