"""A reader study made from the scene: the kept findings of every CT, drawn as the core draws them from files."""

import slicer_host

slicer_host.start()

import csv
import sys
from types import SimpleNamespace

import dicom_standin
import numpy as np
import pydicom
import pytest
import qt
import report_data
import slicer
import vtk
from LNHGLib.image.fingerprint import voxels_sha256
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Source, Volume
from LNHGLib.reader_study import images
from LNHGSegmentationLib.Core.StudyTask import StudyRequest, StudyTask
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Panel.StudySection import StudySection
from LNHGSegmentationLib.Scene import ResultNodes, SceneResults
from LNHGSegmentationLib.Scene.Geometry import gridAt, wholeOf
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange
from panel_host import LNHGSegmentationLogic
from PIL import Image
from planted import found_in


@pytest.fixture(scope="module")
def scan():
    return report_data.make_scan()


@pytest.fixture
def segmentation(scan, scene, tmp_path, monkeypatch):
    """The result of two outlined nodules and a box, on a CT from DICOM."""
    ct = dicom_standin.load_ct(scan, tmp_path / "dicom", "PLANT Doe^John", monkeypatch)
    folder = report_data.write_result(scan, tmp_path / "result", tmp_path / "dicom")
    return ResultNodes.load(folder, ct, VolumeExchange(ct)).segmentation


def made(target, run_events, **options) -> tuple[str, str]:
    """Make a study; returns how it ended and the sentence for the user."""
    ended = []
    StudyTask(StudyRequest(target, **options), ended.append, sys.executable).begin()
    run_events(lambda: ended)
    return ended[0].state, ended[0].message or ended[0].result


def key(target):
    with (target / "sealed" / "key.csv").open(newline="") as file:
        return [(row["result"], row["nodule"]) for row in csv.DictReader(file)]


def test_the_kept_findings_become_cases_and_no_identity_leaves_but_for_the_key(segmentation, tmp_path, run_events):
    state, text = made(tmp_path / "study", run_events, readers="2", layout="strip", dicom=True)
    assert state == "done", text
    assert "2 cases, " in text
    assert key(tmp_path / "study") == [("PLANT Doe^John", "1"), ("PLANT Doe^John", "2")]
    for part in ("packages", "sheets", "study.json", "README.txt"):
        assert found_in(tmp_path / "study" / part) == []
    pictures = sorted((tmp_path / "study").rglob("*.png"))
    assert any(np.ptp(np.asarray(Image.open(path))[:, :400], axis=-1).any() for path in pictures), "a map is drawn"


def test_rejected_findings_stay_out(segmentation, tmp_path, run_events):
    Findings(segmentation).reject(1)
    state, _ = made(tmp_path / "study", run_events, readers="1")
    assert (state, [number for _, number in key(tmp_path / "study")]) == ("done", ["2"])
    Findings(segmentation).reject(2)
    with pytest.raises(ValueError, match="No finding with an outline is kept"):
        StudyTask(StudyRequest(tmp_path / "other"), print, sys.executable)


@pytest.fixture
def fingerprinted(scan, scene, tmp_path, monkeypatch):
    """The result of a run that knows its CT by the voxels, and the CT."""
    ct = dicom_standin.load_ct(scan, tmp_path / "dicom", "CT", monkeypatch)
    stated = {
        "path": "",
        "series_uid": None,
        "voxels_sha256": voxels_sha256(read_volume(tmp_path / "dicom", part=True)),
    }
    folder = report_data.write_result(scan, tmp_path / "result", tmp_path / "dicom", input=stated)
    return ResultNodes.load(folder, ct, VolumeExchange(ct)).segmentation, ct


@pytest.mark.parametrize("changed", ["type", "turned"])
def test_the_ct_that_was_segmented_is_known_by_its_voxels(changed, fingerprinted, tmp_path, run_events):
    segmentation, ct = fingerprinted
    if changed == "type":
        slicer.util.updateVolumeFromArray(ct, slicer.util.arrayFromVolume(ct).astype(np.float64))
    else:
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy([0, -1, 0, 5, 1, 0, 0, 7, 0, 0, 1, 9, 0, 0, 0, 1])
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(matrix)
        for node in (ct, segmentation):
            node.SetAndObserveTransformNodeID(transform.GetID())
    state, text = made(tmp_path / "study", run_events)
    assert state == "done", text


def test_a_ct_that_is_not_the_results_is_refused_by_its_voxels(fingerprinted, tmp_path, run_events):
    """It has the same name, place and size, and the same values in all nodules."""
    _, ct = fingerprinted
    slicer.util.arrayFromVolume(ct)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(ct)
    state, text = made(tmp_path / "study", run_events)
    assert state == "failed"
    assert text == (
        "The study cannot be made: the voxels of CT are not those of the CT that its findings were made on; load that "
        "CT, or segment this one again."
    )
    assert not (tmp_path / "study").exists()


def test_burned_in_annotation_is_refused_unless_the_user_insists(segmentation, tmp_path, run_events):
    file = sorted(slicer.dicomDatabase.files.values())[2]
    header = pydicom.dcmread(file)
    header.BurnedInAnnotation = "YES"
    header.save_as(file)
    state, text = made(tmp_path / "study", run_events)
    assert state == "failed"
    assert "burned-in annotation" in text
    assert not (tmp_path / "study").exists()
    state, text = made(tmp_path / "study", run_events, force=True)
    assert state == "done", text


def test_wrong_options_are_refused_at_once(segmentation, tmp_path):
    for options, words in (({"readers": "a,a"}, "different names"), ({"layout": "cube"}, "layout is 'cube'")):
        with pytest.raises(ValueError, match=words):
            StudyTask(StudyRequest(tmp_path / "study", **options), print, sys.executable)
    with pytest.raises(ValueError, match="already exists"):
        StudyTask(StudyRequest(tmp_path), print, sys.executable)


def test_pictures_are_made_in_a_process_of_their_own_of_the_voxels_in_the_scene(
    segmentation, tmp_path, run_events, monkeypatch
):
    findings, volume = Findings(segmentation), SceneResults.volumeOf(segmentation)
    hu = slicer.util.arrayFromVolume(volume).astype(np.float32)
    signal = slicer.util.arrayFromVolume(SceneResults.heterogeneityOf(segmentation))
    grid, expected = gridAt(volume, wholeOf(volume)), set()
    for number in (1, 2):
        crop = findings.crop(number)
        mask = np.zeros(hu.shape, bool)
        mask[crop.box] = crop.array
        pictures = images.render(images.NoduleVoxels(Volume(hu, grid, Source("")), mask, signal), images.RenderStyle())
        expected |= {images.png(frame) for frames in pictures.frames.values() for frame in frames}
    monkeypatch.setattr(images, "render", lambda *_args: pytest.fail("Slicer's own process draws"))
    assert made(tmp_path / "study", run_events)[0] == "done"
    assert {path.read_bytes() for path in (tmp_path / "study").rglob("*.png")} == expected


@pytest.mark.parametrize("begun", ["before the child speaks", "while it writes"])
def test_stopping_leaves_nothing_and_says_nothing(segmentation, tmp_path, run_events, begun):
    told, stages = [], []
    study = StudyTask(StudyRequest(tmp_path / "out" / "study", "9", "stack"), told.append, sys.executable)
    study._onProgress = lambda _fraction, stage: stages.append(stage)
    study.begin()
    if begun == "while it writes":
        run_events(lambda: stages)
    study.stop()
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".lnhg-*"))
    run_events(lambda: not study.folder.exists())
    assert told == []


@pytest.fixture
def section(scene):
    section = StudySection(sys.executable)
    section.setParameter(LNHGSegmentationLogic().getParameterNode())
    yield section
    section.cleanup()


def test_one_click_makes_the_study_and_says_where(segmentation, section, tmp_path, run_events, monkeypatch):
    target = tmp_path / "my study"
    monkeypatch.setattr(qt, "QFileDialog", SimpleNamespace(getSaveFileName=lambda *_args: str(target)))
    section._parameter.segmentation = segmentation
    assert section.ui.studyButton.enabled
    section.ui.studyReadersEdit.setText("anna, ben")
    section.ui.studyLayoutSelector.setCurrentIndex(1)
    section.ui.studyButton.click()
    assert not section.ui.studyButton.enabled
    run_events(lambda: section.ui.studyButton.enabled)
    assert f"in {target}" in section.ui.studyStatusLabel.text
    assert {path.name.partition("-")[0] for path in (target / "packages").iterdir()} == {"anna", "ben"}
    assert Image.open(next(target.rglob("*.png"))).width > 1200
    assert found_in(target / "packages") == []


def test_the_button_is_off_without_a_result_and_a_fault_is_told(segmentation, section, tmp_path, monkeypatch):
    assert not section.ui.studyButton.enabled
    assert "segment the nodules first" in section.ui.studyButton.toolTip
    section._parameter.segmentation = segmentation
    monkeypatch.setattr(qt, "QFileDialog", SimpleNamespace(getSaveFileName=lambda *_args: str(tmp_path)))
    with pytest.raises(ValueError, match="already exists"):  # tryWithErrorDisplay shows it to the user
        section.makeStudy()
    assert section.ui.studyButton.enabled
    monkeypatch.setattr(qt, "QFileDialog", SimpleNamespace(getSaveFileName=lambda *_args: ""))
    section.makeStudy()
    assert section.ui.studyStatusLabel.text == ""
