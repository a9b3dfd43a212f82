"""Real mouse and key events on Slicer's own views and the panel: nothing crashes, and nothing is left behind."""

import slicer_host

slicer_host.start()

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reader_actions import ACTIONS

pytestmark = pytest.mark.slow


SCRIPT = Path(__file__).with_name("reader_actions.py")
LIMIT_S = 240
END_S = 5.0  # for processes that were killed to be gone


@pytest.fixture(scope="module")
def faults(tmp_path_factory) -> dict[str, str]:
    """What went wrong in each action; a process that dies in one is followed by another for those after it."""
    folder, found, names = tmp_path_factory.mktemp("actions"), {}, list(ACTIONS)
    while names:
        command = [sys.executable, "-X", "faulthandler", str(SCRIPT), str(folder), *names]
        environment = {**os.environ, "TMPDIR": str(folder)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        found.update(json.loads(line) for line in done.stdout.splitlines())
        if done.returncode:
            died = next(name for name in names if name not in found)
            found[died] = f"the process ended with status {done.returncode}:\n{done.stderr[-2000:]}"
        names = [name for name in names if name not in found]
    found["folder"] = folder
    return found


@pytest.mark.parametrize("action", ACTIONS)
def test_action_of_a_reader_does_what_it_should(faults, action):
    assert not faults[action], faults[action]


@pytest.mark.parametrize("action", ["quit_during_run", "quit_during_search"])
def test_quitting_leaves_no_process_and_no_folder(faults, action):
    log = (faults["folder"] / action / "core" / "log").read_text()
    pids = [int(line.split()[1]) for line in log.splitlines() if line.startswith("pid")]
    assert pids
    end = time.monotonic() + END_S
    while (alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive
    assert not list(faults["folder"].glob("LNHG-*"))
