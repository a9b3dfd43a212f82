"""A cohort through the real core, and a scene a case that the real Slicer libraries write and read."""

import slicer_host

slicer_host.start()

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from cohort_data import write_dicom, write_file, zip_folder
from LNHGLib.volume import LOWEST_HU
from LNHGSegmentationLib import BatchScenes
from tiny_model import tiny_chest, write_model

FOLDERS = [Path(__file__).parent, BatchScenes.MODULE_FOLDER]
OPEN = """
import json, sys, slicer_host
slicer_host.start()
import numpy, slicer
from LNHGSegmentationLib.ResultNodes import nodulesOf
assert slicer.mrmlScene.ReadFromMRB(sys.argv[1])
names = sorted(node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
numpy.save(sys.argv[2], slicer.util.arrayFromVolume(slicer.util.getNode(names[0])))
segmentation = slicer.util.getNode(names[0] + " nodules")
segments = segmentation.GetSegmentation().GetNumberOfSegments()
print(json.dumps({"volumes": names, "segments": segments, "nodules": nodulesOf(segmentation)}))
"""


def test_a_scene_a_case_holds_ct_nodules_and_map_and_is_not_made_twice(scene, tmp_path):
    chest = tiny_chest(spacing_mm=(8.0, 5.0, 5.0))
    write_file(tmp_path / "in" / "P01.nii.gz", chest)
    zip_folder(write_dicom(tmp_path / "x", chest, "1.2.1"), tmp_path / "in" / "P02.zip")
    (tmp_path / "in" / "bad.nii.gz").touch()
    model = write_model(tmp_path / "tiny", grid={"kind": "spacing", "spacing_mm": [8.0, 6.0, 6.0]}, threshold=0.2)
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model.folder)]
    assert BatchScenes.main(arguments, python=sys.executable) == 0
    scenes = sorted((tmp_path / "out" / "scenes").iterdir())
    assert [path.name for path in scenes] == ["P01.mrb", "P02.mrb"]
    assert BatchScenes.saveScenes(arguments[:1], tmp_path / "out") == []
    for path in scenes:
        ct, opened = _open_elsewhere(path, tmp_path / "ct.npy")
        names = [path.stem, f"{path.stem} heterogeneity", f"{path.stem} nodules signal"]
        assert opened["volumes"] == names, zipfile.ZipFile(path).namelist()
        np.testing.assert_array_equal(ct, np.maximum(chest.array, LOWEST_HU))
        drawn = [nodule for nodule in opened["nodules"] if nodule["provenance"] != "detector-box"]
        assert opened["segments"] == len(drawn) > 0


def _open_elsewhere(path: Path, array: Path) -> tuple[np.ndarray, dict]:
    """The CT of a scene and what else another Slicer finds in it."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path), str(array)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, FOLDERS))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.load(array), json.loads(done.stdout.splitlines()[-1])
