"""Reports from the panel: the real core in a real child process, on a CT of a DICOM series."""

import slicer_host

slicer_host.start()

import csv
import json
import sys
import time
from types import SimpleNamespace

import dicom_standin
import highdicom as hd
import numpy as np
import pytest
import qt
import report_data
import slicer
from LNHGLib.image.fingerprint import voxels_sha256
from LNHGLib.image.reader import read_volume
from LNHGLib.measurement import size_rules
from LNHGSegmentationLib.Core.ReportTask import INSTANCES_ATTRIBUTE, whyNoReport
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Panel.ReportSection import ReportSection
from LNHGSegmentationLib.Scene import ResultNodes, SceneResults
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange
from panel_host import LNHGSegmentationLogic

pytestmark = pytest.mark.slow


LONGEST_BLOCK_S = 0.1


@pytest.fixture(scope="module")
def scan():
    return report_data.make_scan()


@pytest.fixture
def ct(scan, scene, tmp_path, monkeypatch):
    """The CT node of a DICOM series, as Slicer's DICOM module leaves it."""
    return dicom_standin.load_ct(scan, tmp_path / "dicom", "3: Thorax / lung", monkeypatch)


@pytest.fixture
def parameter(ct, scan, tmp_path):
    """The parameter node with the result of two outlined nodules and a box."""
    folder = report_data.write_result(scan, tmp_path / "result", tmp_path / "dicom")
    nodes = ResultNodes.load(folder, ct, VolumeExchange(ct))
    parameter = LNHGSegmentationLogic().getParameterNode()
    parameter.inputVolume = ct
    parameter.segmentation, parameter.heterogeneity = nodes.segmentation, nodes.heterogeneity
    parameter.threshold = 0.0
    return parameter


@pytest.fixture
def section(parameter, run_events):
    section = ReportSection(python=sys.executable)
    section.setParameter(parameter)
    settle(section, run_events)
    yield section
    section.cleanup()


@pytest.fixture
def findings(parameter):
    return Findings(parameter.segmentation)


def settle(section, run_events):
    run_events(lambda: not section._later.isActive())


def answer_with(target, monkeypatch) -> None:
    """Let the file dialogs answer at once, with a text as PythonQt's do."""
    answers = dict.fromkeys(("getSaveFileName", "getExistingDirectory"), lambda *_args: str(target))
    monkeypatch.setattr(qt, "QFileDialog", SimpleNamespace(**answers))


def click(section, button: str, target, run_events, monkeypatch) -> str:
    """Click a button, choose a target, wait for the end. Returns what the section says then."""
    answer_with(target, monkeypatch)
    settle(section, run_events)
    getattr(section.ui, button).click()
    run_events(lambda: not section.isWriting)
    return section.ui.reportStatusLabel.text


def test_buttons_are_off_and_say_why_without_findings(scene, run_events):
    section = ReportSection()
    section.setParameter(LNHGSegmentationLogic().getParameterNode())
    settle(section, run_events)
    for button in (section.ui.csvButton, section.ui.dicomButton, section.ui.pageButton):
        assert not button.enabled
        assert "segment the nodules first" in button.toolTip
    section.cleanup()


def test_buttons_come_on_with_a_result(section):
    for button in (section.ui.csvButton, section.ui.dicomButton, section.ui.pageButton):
        assert button.enabled, button.toolTip


def test_dicom_is_off_for_a_ct_that_was_no_dicom(section, ct, parameter, run_events):
    ct.RemoveAttribute(INSTANCES_ATTRIBUTE)
    parameter.segmentation.Modified()
    settle(section, run_events)
    assert not section.ui.dicomButton.enabled
    assert "not loaded from DICOM" in section.ui.dicomButton.toolTip
    assert not section.ui.identityCheckBox.enabled
    assert section.ui.pageButton.enabled


def test_dicom_is_off_when_the_files_are_gone_and_under_a_transform(section, ct, parameter, run_events):
    slicer.dicomDatabase.files.clear()
    assert "import the series again" in whyNoReport("dicom", parameter.segmentation)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    ct.SetAndObserveTransformNodeID(transform.GetID())
    assert "transform" in whyNoReport("dicom", parameter.segmentation)


def test_all_buttons_are_off_when_every_finding_is_rejected(section, findings, run_events):
    for row in findings.rows():
        findings.reject(row["number"])
    settle(section, run_events)
    assert not section.ui.csvButton.enabled
    assert "nothing to report" in section.ui.csvButton.toolTip


@pytest.mark.parametrize("scale", ["model", "probability"])
def test_table_says_what_the_scores_of_the_scene_mean(section, parameter, tmp_path, run_events, monkeypatch, scale):
    run = {**SceneResults.runOf(parameter.segmentation), "score_scale": scale}
    parameter.segmentation.SetAttribute(SceneResults.RUN_ATTRIBUTE, json.dumps(run))
    click(section, "csvButton", tmp_path / "nodules.csv", run_events, monkeypatch)
    with (tmp_path / "nodules.csv").open(newline="") as file:
        assert [row["score_scale"] for row in csv.DictReader(file)] == [scale] * 3


def test_table_of_the_kept_findings(section, findings, tmp_path, run_events, monkeypatch):
    findings.reject(2)
    findings.rename(1, "Apex")
    said = click(section, "csvButton", tmp_path / "nodules.csv", run_events, monkeypatch)
    assert said.startswith(f"Written: {tmp_path / 'nodules.csv'}")
    with (tmp_path / "nodules.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["Apex", "Nodule 3"]
    measured = findings.row(1)["measurement"]
    assert float(rows[0]["volume_mm3"]) == pytest.approx(measured["volume_mm3"], abs=1e-3)
    size = size_rules.fleischner(measured["long_axis_mm"], measured["short_axis_mm"], measured["attenuation"])
    assert rows[0]["fleischner_society_2017_band"] == size.band


def test_dicom_of_the_voxels_as_they_are_after_an_edit(section, findings, ct, tmp_path, run_events, monkeypatch):
    crop = findings.crop(1)
    smaller = type(crop)(crop.box, crop.array.copy())
    smaller.array[: smaller.array.shape[0] // 2] = False
    segment = findings.row(1)["segment_id"]
    before = findings.segments.state(segment)
    findings.segments.write(segment, smaller)
    findings.applyExternalEdits({segment: before})
    said = click(section, "dicomButton", tmp_path, run_events, monkeypatch)
    assert said.startswith("Written:"), said
    seg = hd.seg.segread(tmp_path / "3_Thorax_lung_seg.dcm")
    found = seg.get_pixels_by_source_instance(
        list(slicer.dicomDatabase.files), combine_segments=True, assert_missing_frames_are_empty=True
    )
    expected = np.zeros(found.shape, bool)
    expected[findings.crop(1).box] = findings.crop(1).array
    number = next(n for n in (1, 2) if seg.get_segment_description(n).tracking_id == "LNHG nodule 1")
    np.testing.assert_array_equal(found == number, expected)
    assert seg.get_segment_description(number).algorithm_type.value == "SEMIAUTOMATIC"
    sr = hd.sr.srread(tmp_path / "3_Thorax_lung_sr.dcm").content
    group = next(g for g in sr.get_volumetric_roi_measurement_groups() if g.tracking_identifier == "LNHG nodule 1")
    volume = next(m.value for m in group.get_measurements() if m.name.meaning == "Volume")
    assert volume == pytest.approx(findings.row(1)["measurement"]["volume_mm3"], abs=1e-3)


def test_another_ct_behind_the_same_series_is_refused(section, findings, ct, tmp_path, run_events, monkeypatch):
    slicer.util.arrayFromVolume(ct)[:] += 50
    slicer.util.arrayFromVolumeModified(ct)
    segment = findings.row(1)["segment_id"]
    findings.applyExternalEdits({segment: findings.segments.state(segment)})  # measured anew, on the other values
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", told.append)
    said = click(section, "dicomButton", tmp_path / "out", run_events, monkeypatch)
    assert "does not belong to the DICOM series" in said
    assert told == [said]


def test_a_page_shows_no_ct_whose_voxels_are_not_those_of_the_result(
    section, parameter, ct, scan, tmp_path, run_events, monkeypatch
):
    original = voxels_sha256(read_volume(tmp_path / "dicom", part=True))
    run = {**SceneResults.runOf(parameter.segmentation), "voxels_sha256": original}
    parameter.segmentation.SetAttribute(SceneResults.RUN_ATTRIBUTE, json.dumps(run))
    said = click(section, "pageButton", tmp_path / "own.pdf", run_events, monkeypatch)
    assert said == f"Written: {tmp_path / 'own.pdf'}."
    slicer.util.arrayFromVolume(ct)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(ct)
    said = click(section, "pageButton", tmp_path / "other.pdf", run_events, monkeypatch)
    assert "The report has no pictures: " in said
    assert "its voxels are those of another CT" in said


def test_page_as_pdf(section, tmp_path, run_events, monkeypatch):
    said = click(section, "pageButton", tmp_path / "report.pdf", run_events, monkeypatch)
    assert said == f"Written: {tmp_path / 'report.pdf'}."
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"


def test_writing_does_not_block(section, tmp_path, run_events, monkeypatch):
    """The longest time without the event loop, from the click to the end."""
    answer_with(tmp_path / "r.png", monkeypatch)
    whyNoReport("page", section._segmentation)
    longest, last = 0.0, time.perf_counter()
    section.ui.pageButton.click()
    while section.isWriting:
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
        slicer.app.processEvents()
        time.sleep(0.002)
    assert longest < LONGEST_BLOCK_S
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_closing_the_scene_while_writing_leaves_nothing(section, tmp_path, run_events, monkeypatch):
    answer_with(tmp_path / "r.png", monkeypatch)
    section.ui.caseEdit.setText(" Case 7 ")
    section.ui.pageButton.click()
    assert section._task._request.case == "Case 7"
    folder = section._task.folder
    section.setParameter(None)
    assert not section.isWriting
    run_events(lambda: not folder.exists())
    time.sleep(0.3)
    slicer.app.processEvents()
    assert not (tmp_path / "r.png").exists()


def test_sizes_follow_rule_and_findings(section, findings, run_events):
    table = section.ui.sizeTable
    assert "research use" in section.ui.sizeNoteLabel.text
    assert [section.ui.ruleSelector.itemText(i) for i in range(2)] == list(size_rules.RULES)
    assert table.rowCount() == 3
    m = findings.row(1)["measurement"]
    for index, rule in enumerate(size_rules.RULES.values()):
        section.ui.ruleSelector.setCurrentIndex(index)
        size = rule(m["long_axis_mm"], m["short_axis_mm"], m["attenuation"])
        assert table.item(0, 1).text() == f"{size.mean_diameter_mm:g} mm"
        assert table.item(0, 2).text() == size.band
    assert table.item(2, 2).text() == "not outlined"
    findings.reject(1)
    settle(section, run_events)
    assert table.item(0, 0).text() == "Nodule 2"
