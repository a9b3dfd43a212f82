"""Scenes (.mrb) whose values of LNHG are damaged: the panel goes on, and takes what it can read.

Damaged archives, scene files and images are Slicer's own to read: its readers in C++ end the process over some of them.
"""

import slicer_host

slicer_host.start()

import random
import re
import zipfile
from pathlib import Path

import pytest
import slicer

SCENE = Path(__file__).parents[1] / "data" / "scene_of_b361d9c.mrb"


def write_changed(path: Path, rng: random.Random) -> str:
    """Write the scene with another value of one attribute; return what was changed."""
    with zipfile.ZipFile(SCENE) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    scene = next(name for name in files if name.endswith(".mrml"))
    text = files[scene].decode()
    found = rng.choice(list(re.finditer(r"(LNHG\.\w+):((?:&quot;|[^;\"])*)", text)))
    value, at = found[2], rng.randrange(len(found[2]) + 1)
    new = rng.choice(
        (value[:at], "", "[]", "{}", "null", "7", "[7]", "&quot;x&quot;", f"{value[:at]}9{value[at + 1 :]}")
    )
    files[scene] = f"{text[: found.start(2)]}{new}{text[found.end(2) :]}".encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return f"{found[1]}: {value[:60]} -> {new[-60:]}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(23), 319])
def test_the_panel_goes_on_after_a_changed_scene(seed, panel, run_events, tmp_path, capfd):
    change = write_changed(tmp_path / "scene.mrb", random.Random(seed))
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    for _ in range(3):
        slicer.app.processEvents()
    said = capfd.readouterr().err
    assert "Traceback" not in said, f"{change}\n{said[-1200:]}"
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(SCENE), True)
    assert "with a score of at least" in panel.ui.statusLabel.text
