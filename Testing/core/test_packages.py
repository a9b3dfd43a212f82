"""The check that packages load, with packages that fail in every way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from LNHGLib import packages

CORE = Path(packages.__file__).parents[1]


@pytest.fixture
def check(tmp_path):
    (tmp_path / "fine.py").write_text("__version__ = '1.2'")
    (tmp_path / "broken.py").write_text("raise OSError('libgone.so:\\n cannot open')")
    (tmp_path / "deadly.py").write_text("import os; os._exit(77)")

    def run(*names):
        code = "import sys; from LNHGLib import packages; sys.exit(not packages.load(sys.argv[1:]))"
        command, search = [sys.executable, "-c", code, *names], {"PYTHONPATH": f"{tmp_path}:{CORE}"}
        done = subprocess.run(command, env=search, capture_output=True, text=True, check=False)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_versions_of_what_loads_and_reasons_of_what_does_not(check):
    status, lines = check("fine", "broken", "absent")
    assert status == 1
    assert lines[-1] == {
        "trying": None,
        "versions": {"fine": "1.2"},
        "faults": {
            "broken": "OSError: libgone.so: cannot open",
            "absent": "ModuleNotFoundError: No module named 'absent'",
        },
    }


def test_the_last_line_names_the_package_that_ended_the_process(check):
    status, lines = check("fine", "deadly", "broken")
    assert status == 77
    assert lines[-1]["trying"] == "deadly"


def test_all_well_ends_with_0(check):
    assert check("fine")[0] == 0


def test_the_check_itself_needs_no_package():
    code = "import sys; import LNHGLib.packages; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=CORE, capture_output=True, text=True, check=True)
    assert not set(packages.NAMES) & set(done.stdout.split())
    assert "numpy" not in done.stdout
