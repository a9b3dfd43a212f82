"""Kill preparing with no warning, in the middle and again: what comes out in the end is the same."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scan_trees
from LNHGLib.errors import InputError
from LNHGTrainingLib.data import crops
from LNHGTrainingLib.prepare import storage
from LNHGTrainingLib.prepare.run import prepare
from LNHGTrainingLib.prepare.sources import PrepareOptions
from scan_trees import four_readers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SCANS = 8


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("luna16") / "in"
    scan_trees.write_luna16(folder, {f"1.2.{index}": [((10 + index % 4, 30, 32), 8.0)] for index in range(SCANS)})
    (folder / "subset0" / "1.2.9.mhd").write_text("ObjectType = Image\n")
    for index in range(3):
        scan_trees.write_xml(
            folder.parent / "xml" / f"{index}.xml", f"1.2.{index}", four_readers((10 + index, 30, 32), 4)
        )
    return folder


def start(tree, out):
    arguments = ["prepare", "luna16", str(tree), str(out), "--xml", str(tree.parent / "xml")]
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("LNHGSegmentation", "LNHGTraining"))
    return subprocess.Popen(
        [sys.executable, "-m", "LNHGTrainingLib", *arguments],
        env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(tree, out):
    prepare("luna16", tree, out, PrepareOptions(xml=tree.parent / "xml"))


def kill_at(tree, out, scan):
    """Kill -9 as soon as it says that it begins with that scan."""
    with start(tree, out) as process:
        for line in process.stderr:
            if line.split()[-1] == scan:
                break
        process.kill()
    assert process.returncode == -9


@pytest.fixture(scope="module")
def outs(tree, tmp_path_factory):
    """Prepared in one go; killed twice and gone on."""
    folder = tmp_path_factory.mktemp("outs")
    run(tree, folder / "whole")
    kill_at(tree, folder / "killed", "1.2.2")
    first = {path.name: path.stat().st_ino for path in (folder / "killed" / "scans").glob("*.h5")}
    kill_at(tree, folder / "killed", "1.2.5")
    left = sorted(path.name for path in (folder / "killed").rglob("*"))
    assert 2 <= len(first) < sum(name.endswith(".h5") for name in left) < SCANS
    assert not {"volumes.h5", "manifest.csv", "report.csv"} & set(left)
    run(tree, folder / "killed")
    return folder / "whole", folder / "killed", first


def test_a_killed_run_goes_on_to_the_same_bytes(outs):
    whole, killed, _ = outs
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(killed) for path in killed.rglob("*") if path.is_file())
    assert len(names) == SCANS + 4
    for name in names:
        if name.name != storage.INDEX:  # HDF5 leaves a byte of its index to chance
            assert (whole / name).read_bytes() == (killed / name).read_bytes(), name


def test_the_index_shows_the_same(outs):
    with h5py.File(outs[0] / storage.INDEX) as one, h5py.File(outs[1] / storage.INDEX) as two:
        assert list(one) == list(two)
        assert list(one["volumes"]) == list(two["volumes"])
        for name in ("ct", "reader_masks", "other_mask", "valid_extent"):
            assert np.array_equal(one[name], two[name])


def test_no_scan_was_written_twice(outs):
    _, killed, first = outs
    assert first == {name: (killed / "scans" / name).stat().st_ino for name in first}


def test_a_half_written_file_is_no_scan(tree, outs):
    """What a kill leaves of a scan has another name, and goes."""
    killed = outs[1]
    part = killed / "scans" / "1.2.3.h5.part"
    part.write_bytes(b"half")
    run(tree, killed)
    assert not part.exists()


def test_an_index_without_its_scans_is_refused(outs, tmp_path):
    (tmp_path / storage.INDEX).write_bytes((outs[0] / storage.INDEX).read_bytes())
    (tmp_path / storage.TABLE).write_text((outs[0] / storage.TABLE).read_text().replace(",-1,0\n", ",0,0\n"))
    with pytest.raises(InputError, match=r"scans/1\.2\.0\.h5 and 7 more"):
        crops.load_crops(tmp_path / storage.INDEX, tmp_path / storage.TABLE, [0])
