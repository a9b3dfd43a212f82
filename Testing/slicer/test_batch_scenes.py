"""A cohort through the real core, and a scene a case that the real Slicer libraries write and read."""

import slicer_host

slicer_host.start()

import sys

import numpy as np
import slicer
from cohort_data import write_dicom, write_file, zip_folder
from LNHGLib.volume import LOWEST_HU
from LNHGSegmentationLib import BatchScenes, Cases
from tiny_model import tiny_chest, write_model


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
        scene.Clear(0)
        assert scene.ReadFromMRB(str(path))
        volumes = sorted(node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
        assert volumes == [path.stem, f"{path.stem} heterogeneity", f"{path.stem} nodules signal"]
        ct = slicer.util.arrayFromVolume(slicer.util.getNode(path.stem))
        np.testing.assert_array_equal(ct, np.maximum(chest.array, LOWEST_HU))
        segmentation = slicer.util.getNode(f"{path.stem} nodules")
        drawn = [nodule for nodule in Cases.rowsOf(segmentation) if nodule["provenance"] != "detector-box"]
        assert segmentation.GetSegmentation().GetNumberOfSegments() == len(drawn) > 0
