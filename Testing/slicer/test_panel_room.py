"""The room that the panel takes: on a screen of 1080 lines Slicer leaves its panels 365 x 780 pixels."""

import slicer_host

slicer_host.start()

import copy
import json

import fake_core
import fakes
import pytest
import qt
import slicer
from LNHGSegmentationLib.Findings import FindingMeasures
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import SceneResults

WIDTH, HEIGHT = 365, 780
RESERVE = 10  # pixels: fonts and frames of other desktops differ
LONG = "LIDC-IDRI-0003, thorax 1.25 mm, lung kernel, series 3 of 7, reconstructed again at the second workstation"
SECTIONS = ("run", "advanced", "findings", "display", "report", "study", "install")


@pytest.fixture(autouse=True)
def _columns_of_the_start():
    slicer.app.userSettings().remove("LNHG/FindingsColumns")


@pytest.fixture
def core(core):
    """A core on a computer with a GPU of a long name."""
    gpu = {"id": "cuda:0", "name": LONG, "cores": None, "memory_gib": 79.6, "free_gib": 70.2}
    core.devices = [gpu, *core.devices]
    return core


@pytest.fixture
def panel(panel):
    """The panel in a scroll area, as in Slicer."""
    area = qt.QScrollArea()
    area.setFrameShape(qt.QFrame.NoFrame)
    area.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
    area.setVerticalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
    area.setWidgetResizable(True)
    area.setWidget(panel.uiWidget)
    area.resize(WIDTH, HEIGHT)
    area.show()
    panel.area = area  # the panel's widget lives as long as this
    return panel


def least_width(panel) -> int:
    for _ in range(20):  # sizes are worked out one event after the other
        slicer.app.processEvents()
    return panel.uiWidget.minimumSizeHint().width()


def open_all(panel) -> None:
    for name in SECTIONS:
        getattr(panel.ui, f"{name}CollapsibleButton").collapsed = False


def run(panel, run_events, mode: str = "segment") -> None:
    panel.core.mode = mode
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)


def show_findings(panel, count: int, shown: int, **more) -> None:
    """Let the result have many findings with long texts, for the first time; `shown` of them score enough.

    `more` is said of the run, too.
    """
    segmentation = panel._parameter.segmentation
    findings = Findings(segmentation)
    first = {
        **findings.row(1),
        **FindingMeasures.measure(segmentation, findings.crop(1)),
        "side": "right",
        "slice": 512,
    }
    first["measurement"].update(long_axis_mm=28.8, short_axis_mm=28.8, volume_mm3=28888.0)
    rows = [
        {**copy.deepcopy(first), "number": 1 + i, "name": f"Nodule {1 + i}", "score": 0.888 if i < shown else 0.333}
        for i in range(count)
    ]
    run = {**SceneResults.runOf(segmentation), "threshold": 0.611, "lowest": 0.3055, **more}
    SceneResults.choose(panel._parameter, None)
    segmentation.SetAttribute(SceneResults.NODULES_ATTRIBUTE, json.dumps(rows))
    segmentation.SetAttribute(SceneResults.RUN_ATTRIBUTE, json.dumps(run))
    segmentation.RemoveAttribute(SceneResults.THRESHOLD_ATTRIBUTE)
    SceneResults.choose(panel._parameter, segmentation)


def test_panel_is_narrow_enough_before_a_run(panel, run_events):
    open_all(panel)
    assert least_width(panel) <= WIDTH
    fakes.make_ct_node(LONG)
    panel._parameter.model = "/" + LONG
    run_events(lambda: panel.logic.devices.areKnown)
    assert least_width(panel) <= WIDTH


@pytest.mark.parametrize("width", [332, WIDTH])
def test_what_an_empty_field_asks_for_is_not_cut_off(panel, width):
    open_all(panel)
    panel.area.resize(width, HEIGHT)
    least_width(panel)
    asked = {each: each.placeholderText() for each in panel.uiWidget.findChildren(qt.QLineEdit)}
    assert panel.ui.caseEdit.placeholderText() in asked.values()
    for field, text in asked.items():
        assert not text or field.fontMetrics().horizontalAdvance(text) + RESERVE <= field.width(), text


def test_panel_is_narrow_enough_during_a_run_and_with_the_reason_of_a_failed_one(panel, run_events, monkeypatch):
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda _text: None)
    open_all(panel)
    fakes.make_ct_node(LONG)
    panel.core.mode = "slow"
    panel.ui.applyButton.click()
    run_events(lambda: panel.ui.statusLabel.text.startswith("working"))
    assert least_width(panel) <= WIDTH
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    run(panel, run_events, "refuse")
    for label in ("statusLabel", "findingsLabel", "reportStatusLabel", "studyStatusLabel", "installLabel"):
        getattr(panel.ui, label).setText(9 * f"{LONG}. ")
        getattr(panel.ui, label).setVisible(True)
    assert least_width(panel) <= WIDTH


def test_panel_is_narrow_enough_after_a_run(panel, run_events):
    open_all(panel)
    fakes.make_ct_node(LONG)
    run(panel, run_events)
    show_findings(panel, 99, 88)
    assert least_width(panel) <= WIDTH
    assert panel.ui.shownLabel.text == "88 of 99"
    for action in panel.sections[1].table.columnMenu.actions():
        action.setChecked(True)
    assert least_width(panel) <= WIDTH


def test_table_shows_number_score_place_size_and_volume_without_scrolling_sideways(panel, run_events):
    fakes.make_ct_node()
    run(panel, run_events)
    show_findings(panel, 99, 88)
    table = panel.ui.findingsTable
    shown = [column for column in range(table.columnCount()) if not table.isColumnHidden(column)]
    texts = {table.item(0, column).text(): column for column in shown}
    assert list(texts) == ["1", "0.888", "R 512", "28.8 x 28.8", "28888"]
    for column in shown:  # each header with the mark of the sorted column
        table.horizontalHeader().sectionClicked.emit(column)
        least_width(panel)
        assert table.verticalScrollBar().maximum() > 0
        assert table.horizontalScrollBar().maximum() == 0
        text = table.fontMetrics().horizontalAdvance("R 512") + 8  # with the margins of a cell
        assert table.columnWidth(texts["R 512"]) >= text + RESERVE


def test_segment_findings_and_display_fit_below_each_other_after_a_run(panel, run_events):
    fakes.make_ct_node(LONG)
    run(panel, run_events)
    run_events(lambda: panel.logic.devices.areKnown)
    show_findings(panel, 14, 8)
    least_width(panel)
    display = panel.sections[2].uiWidget
    assert display.mapTo(panel.uiWidget, display.rect().bottomLeft()).y() < HEIGHT
    assert panel.ui.findingsTable.verticalScrollBar().maximum() == 0
    assert panel.ui.findingsTable.rowCount() == 8
    assert panel.uiWidget.width() == WIDTH


@pytest.mark.parametrize("width", [332, WIDTH])
def test_probabilities_and_what_to_expect_are_not_cut_off(panel, run_events, width):
    panel.area.resize(width, HEIGHT)
    fakes.make_ct_node(LONG)
    run(panel, run_events)
    run_events(lambda: panel.logic.devices.areKnown)
    froc = {**fake_core.FROC, "found": [110, 119, 120], "false_per_scan": [8.8, 18.88, 28.88], "nodules": 120}
    show_findings(panel, 14, 8, score_scale="probability", froc={**froc, "scans": 100, "thresholds": [0.9, 0.8, 0.7]})
    assert least_width(panel) <= width
    label = panel.ui.expectationLabel
    assert label.text == "About 120 of 120 nodules found, 28.9 or more false per scan (100\N{NO-BREAK SPACE}scans)"
    assert label.height() >= label.heightForWidth(label.width())
    metrics = label.fontMetrics()
    assert panel.ui.thresholdLabel.width() >= metrics.horizontalAdvance("Least prob.:")
    assert panel.ui.shownLabel.width() >= metrics.horizontalAdvance("8 of 14")
    table = panel.ui.findingsTable
    header = table.horizontalHeader()
    header.sectionClicked.emit(2)  # with the mark of the sorted column
    least_width(panel)
    assert table.columnWidth(2) >= metrics.horizontalAdvance(table.horizontalHeaderItem(2).text())
    assert table.horizontalScrollBar().maximum() == 0
    display = panel.sections[2].uiWidget
    assert display.mapTo(panel.uiWidget, display.rect().bottomLeft()).y() < HEIGHT


def test_first_finding_is_shown_after_a_run_but_not_after_loading_the_scene(panel, run_events, tmp_path):
    fakes.make_ct_node()
    run(panel, run_events)
    assert panel.sections[1].table.current() == 1
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    assert panel.ui.findingsTable.rowCount() == 2
    assert panel.sections[1].table.current() is None
