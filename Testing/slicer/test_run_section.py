"""The run section by clicks and keys: models, devices, time, several CTs, and what goes wrong."""

import slicer_host

slicer_host.start()

import shutil
from pathlib import Path

import fakes
import pytest
import qt
import slicer
from LNHGLib.results import run_times
from LNHGSegmentationLib.Core.RunTime import PANEL_S, Clock
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Panel import RunTexts
from LNHGSegmentationLib.Scene import SceneResults
from tiny_model import write_model

GPUS = [
    {"id": "cuda:0", "name": "Large GPU", "cores": None, "memory_gib": 79.6, "free_gib": 70.2},
    {"id": "cuda:1", "name": "Small GPU", "cores": None, "memory_gib": 8.0, "free_gib": 7.6},
]
CPU = {"id": "cpu", "name": "Made-up CPU", "cores": 8, "memory_gib": None, "free_gib": None}
FIRST_S = PANEL_S + run_times.START_S + run_times.CPU_SECONDS_PER_LITER["openvino"] * run_times.MIN_LITERS
TAKES = f"Takes {RunTexts.duration(FIRST_S)} on the CPU (8 cores) by OpenVINO."


@pytest.fixture(autouse=True)
def no_runs_before(tmp_path, monkeypatch):
    monkeypatch.setenv("LNHG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def with_gpus(core):
    core.devices = [*GPUS, CPU]


def items(selector) -> list[str]:
    return [selector.itemText(index) for index in range(selector.count)]


def choose(selector, value: str) -> None:
    """Choose by the arrow keys, as a user does."""
    selector.setFocus()
    step = qt.Qt.Key_Down if selector.findData(value) > selector.currentIndex else qt.Qt.Key_Up
    for _ in range(abs(selector.findData(value) - selector.currentIndex)):
        for kind in (qt.QEvent.KeyPress, qt.QEvent.KeyRelease):
            qt.QApplication.sendEvent(selector, qt.QKeyEvent(kind, step, qt.Qt.NoModifier))


def run(panel, run_events) -> None:
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)


# Devices and time --------------------------------------------------------------------------------


def test_devices_are_listed_with_their_memory(with_gpus, panel, run_events):
    run_events(lambda: panel.logic.devices.areKnown)
    assert items(panel.ui.deviceSelector) == [
        "Automatic: Large GPU",
        "GPU: Large GPU, 80 GB (70 GB free)",
        "GPU: Small GPU, 8 GB (8 GB free)",
        "CPU: Made-up CPU",
    ]


@pytest.fixture
def with_devices_unknown(core):
    core.devices = []


def test_before_the_devices_are_known_automatic_and_cpu_can_be_chosen(with_devices_unknown, panel):
    assert items(panel.ui.deviceSelector) == ["Automatic", "CPU"]


@pytest.fixture
def with_a_core_that_says(core):
    """Let the child process print a line and end with a status."""

    def say(line: str, status: int) -> None:
        core.python.write_text(f'#!/bin/sh\necho "{line}" >&2\nexit {status}\n')

    return say


def test_why_the_devices_are_not_known_is_said_where_the_time_stands(core, with_a_core_that_says, request, run_events):
    working = core.python.read_text()
    reason = "a Python package does not load (No module named 'torch'); press Repair under Set-up."
    with_a_core_that_says(f"lnhg: {reason}", 1)
    panel = request.getfixturevalue("panel")
    fakes.make_ct_node()
    run_events(lambda: panel.ui.expectedLabel.text)
    assert panel.ui.expectedLabel.text == f"The devices of this computer are not known: {reason}"
    assert panel.ui.applyButton.enabled
    core.python.write_text(working)
    run(panel, run_events)
    run_events(lambda: panel.ui.expectedLabel.text == TAKES)


def test_devices_are_not_known_when_the_child_dies_without_a_word(core, request, run_events):
    core.python.write_text("#!/bin/sh\nkill -9 $$\n")
    panel = request.getfixturevalue("panel")
    fakes.make_ct_node()
    run_events(lambda: panel.ui.expectedLabel.text)
    assert panel.ui.expectedLabel.text.endswith("the program that lists them ended without a word (status -9).")


def test_failure_that_the_core_did_not_expect_is_told_without_its_prefixes(panel, with_a_core_that_says, run_events):
    with_a_core_that_says("lnhg: failed: TypeError: unsupported operand; set LNHG_DEBUG=1 to see where.", 1)
    fakes.make_ct_node()
    run(panel, run_events)
    assert panel.ui.statusLabel.text == "TypeError: unsupported operand; set LNHG_DEBUG=1 to see where."


def test_devices_that_become_known_later_leave_the_sentence_of_a_failed_run(panel, run_events):
    panel.core.mode = "refuse"
    fakes.make_ct_node()
    run(panel, run_events)
    said = panel.ui.statusLabel.text
    assert "load a chest CT" in said
    panel.sections[0]._onDevicesFound()
    assert panel.ui.statusLabel.text == said


def test_status_is_starting_once_the_ct_is_handed_over_and_the_child_has_not_spoken(panel, run_events):
    panel.core.python.write_text("#!/bin/sh\nexec sleep 60\n")
    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: panel.ui.statusLabel.text.startswith("Starting"), limit_s=10.0)


def test_chosen_device_reaches_the_child_process(with_gpus, panel, run_events):
    run_events(lambda: panel.logic.devices.areKnown)
    fakes.make_ct_node()
    choose(panel.ui.deviceSelector, "cuda:1")
    assert panel._parameter.device == "cuda:1"
    run(panel, run_events)
    assert panel.core.arguments[6:10] == ["--device", "cuda:1", "--runtime", "auto"]


def test_device_of_another_computers_scene_is_refused_in_the_tooltip(panel, run_events):
    fakes.make_ct_node()
    panel._parameter.device = "cuda:3"
    run_events(lambda: panel.logic.devices.areKnown)
    assert not panel.ui.applyButton.enabled
    assert "cuda:3 is not on this computer" in panel.ui.applyButton.toolTip
    assert panel.ui.deviceSelector.currentText == "cuda:3 (not on this computer)"
    choose(panel.ui.deviceSelector, "cpu")
    assert panel.ui.applyButton.enabled


def test_ct_that_comes_when_the_devices_are_known_raises_nothing_before_it_has_voxels(panel, run_events):
    run_events(lambda: panel.logic.devices.areKnown)
    fakes.make_ct_node("first")
    second = slicer.util.addVolumeFromArray(fakes.make_ct_array(), fakes.IJK_TO_RAS, "second")
    panel._parameter.inputVolume = second
    assert panel.ui.applyButton.enabled
    assert panel.ui.expectedLabel.text.startswith("Takes a few seconds")


def test_expected_time_is_shown_before_the_start(panel, run_events):
    fakes.make_ct_node()
    run_events(lambda: panel.ui.expectedLabel.text.startswith("Takes"))
    assert panel.ui.expectedLabel.text == TAKES


def test_time_on_a_gpu_is_not_made_up_before_its_first_run(with_gpus, panel, run_events):
    fakes.make_ct_node()
    run_events(lambda: "Large GPU" in panel.ui.expectedLabel.text)
    assert panel.ui.expectedLabel.text == "On Large GPU by PyTorch. How long it takes is known after the first run."


def test_why_nothing_can_be_started_is_said_where_the_time_stands(panel):
    assert panel.ui.expectedLabel.text == panel.ui.applyButton.toolTip
    assert "Select a chest CT" in panel.ui.expectedLabel.text


def test_time_is_that_of_earlier_runs_by_model_program_and_device(with_gpus, panel, run_events):
    ct = fakes.make_ct_node()
    liters = run_times.lung_liters(slicer.util.arrayFromVolume(ct), ct.GetSpacing()[::-1])
    for device, seconds in (("Large GPU", 300.0), ("cpu", 600.0)):
        run_times.keep("lnhg-1mm", "torch", device, run_times.Run(liters, 0.0, seconds))
    run_times.keep("lnhg-1mm", "openvino", "cpu", run_times.Run(2 * liters, 0.0, 240.0))
    run_events(lambda: panel.ui.expectedLabel.text == "Takes about 5 minutes on Large GPU by PyTorch.")
    panel._parameter.runtime = "openvino"
    assert panel.ui.expectedLabel.text == "Takes about 2 minutes on the CPU (8 cores) by OpenVINO."
    panel._parameter.runtime, panel._parameter.device = "torch", "cpu"
    assert panel.ui.expectedLabel.text == "Takes about 10 minutes on the CPU (8 cores) by PyTorch."
    panel._parameter.runtime, panel._parameter.model = "auto", "paper"
    assert panel.ui.expectedLabel.text.endswith(" on the CPU (8 cores) by PyTorch.")
    assert "10 minutes" not in panel.ui.expectedLabel.text


def test_time_counts_what_the_panel_itself_takes(panel, run_events):
    fakes.make_ct_node()
    run_events(lambda: panel.logic.devices.areKnown)
    core = run_times.expected_s("lnhg-1mm", "openvino", "cpu", run_times.MIN_LITERS)
    assert panel.sections[0]._expected() == pytest.approx(core + PANEL_S)


# What computes -----------------------------------------------------------------------------------


def test_what_computes_is_chosen_by_keys_and_reaches_the_child_process(panel, run_events):
    run_events(lambda: panel.logic.devices.areKnown)
    fakes.make_ct_node()
    assert items(panel.ui.runtimeSelector) == ["Automatic", "OpenVINO (CPU only)", "PyTorch (GPU or CPU)"]
    choose(panel.ui.runtimeSelector, "torch")
    assert panel._parameter.runtime == "torch"
    assert panel.ui.expectedLabel.text.endswith("on the CPU (8 cores) by PyTorch.")
    run(panel, run_events)
    assert panel.core.arguments[8:10] == ["--runtime", "torch"]
    assert SceneResults.runOf(panel._parameter.segmentation)["runtime"] == "openvino"  # as the core says


@pytest.fixture
def without_torch(core):
    core.runtimes, core.models = ["openvino"], {"lnhg-1mm": ["openvino"], "paper": []}
    core.devices = [CPU]


def test_a_computer_without_pytorch_is_ready(without_torch, panel, run_events):
    fakes.make_ct_node()
    run_events(lambda: panel.ui.expectedLabel.text == TAKES)
    assert panel.ui.applyButton.enabled
    assert items(panel.ui.runtimeSelector)[2] == "PyTorch, not installed"


def test_what_is_not_installed_or_does_not_know_the_model_is_refused_with_the_cure(without_torch, panel, run_events):
    fakes.make_ct_node()
    run_events(lambda: panel.logic.devices.areKnown)
    panel._parameter.runtime = "torch"
    assert not panel.ui.applyButton.enabled
    assert "PyTorch is not installed" in panel.ui.applyButton.toolTip
    panel._parameter.runtime, panel._parameter.model = "auto", "paper"
    assert panel.ui.applyButton.toolTip.startswith("paper needs PyTorch on this device: install it under Set-up")
    panel._parameter.model = ""
    assert panel.ui.applyButton.enabled


def test_openvino_on_a_gpu_is_refused_and_takes_the_cpu_where_the_device_is_automatic(with_gpus, panel, run_events):
    fakes.make_ct_node()
    run_events(lambda: panel.logic.devices.areKnown)
    panel._parameter.runtime = "openvino"
    assert panel.ui.expectedLabel.text == TAKES
    panel._parameter.device = "cuda:1"
    assert "OpenVINO cannot compute lnhg-1mm on this device" in panel.ui.applyButton.toolTip


def test_a_click_is_possible_where_nothing_is_installed_yet(core, request, run_events):
    core.runtimes, core.models = [], {}
    core.devices = [CPU]
    panel = request.getfixturevalue("panel")
    fakes.make_ct_node()
    run_events(lambda: panel.logic.devices.areKnown)
    assert panel.ui.applyButton.enabled


def test_what_was_installed_is_seen_at_once(without_torch, panel, run_events):
    run_events(lambda: panel.logic.devices.areKnown)
    panel.core.runtimes = ["openvino", "torch"]
    panel.core.devices = [CPU]
    panel.install.onInstalled()
    run_events(lambda: items(panel.ui.runtimeSelector)[2] == "PyTorch (GPU or CPU)")


def test_time_left_follows_experience_first_and_progress_later():
    now = [0.0]
    clock = Clock(100.0, now=lambda: now[0])
    assert clock.left(0.0) == 100
    now[0] = 10.0
    assert clock.left(0.01) == pytest.approx(90, abs=40)
    now[0] = 50.0
    assert clock.left(0.5) == pytest.approx(50)
    assert Clock(None, now=lambda: now[0]).left(0.1) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "a few seconds"),
        (34, "about 30 seconds"),
        (52, "about 1 minute"),
        (100, "about 2 minutes"),
        (754, "about 15 minutes"),
    ],
)
def test_times_are_as_coarse_as_they_are_known(seconds, text):
    assert RunTexts.duration(seconds) == text


# Models -----------------------------------------------------------------------------------------------


@pytest.fixture
def real_models(panel, monkeypatch, tmp_path):
    """The real list of models, with an own folder for the user's."""
    monkeypatch.setenv("LNHG_MODELS", str(tmp_path / "models"))
    del panel.logic.models
    return tmp_path


def add(panel, monkeypatch, run_events, folder) -> None:
    chosen = folder / "model.json" if folder.suffix != ".zip" else folder
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(chosen))
    panel.ui.addModelButton.click()
    assert not panel.ui.addModelButton.enabled
    run_events(lambda: panel.ui.addModelButton.enabled)


def test_model_folder_is_checked_copied_and_chosen(panel, real_models, monkeypatch, run_events):
    model = write_model(real_models / "tiny")
    add(panel, monkeypatch, run_events, model.folder)
    assert panel._parameter.model == model.name
    assert panel.ui.modelSelector.currentText == model.name
    assert (real_models / "models" / model.name / "model.json").exists()


def test_zipped_model_is_checked_unpacked_and_chosen(panel, real_models, monkeypatch, run_events):
    model = write_model(real_models / "tiny")
    add(panel, monkeypatch, run_events, Path(shutil.make_archive(str(real_models / "packed"), "zip", model.folder)))
    assert panel._parameter.model == model.name
    assert (real_models / "models" / model.name / "model.json").exists()


def test_changed_weights_are_refused_in_one_sentence(panel, real_models, monkeypatch, run_events):
    model, told = write_model(real_models / "tiny"), []
    with (model.folder / "detector.safetensors").open("ab") as file:
        file.write(b"x")
    monkeypatch.setattr(slicer.util, "errorDisplay", told.append)
    add(panel, monkeypatch, run_events, model.folder)
    assert len(told) == 1
    assert "SHA-256" in told[0]
    assert panel._parameter.model == ""
    assert not (real_models / "models" / model.name).exists()


def test_folder_without_a_model_is_refused_and_no_folder_does_nothing(panel, real_models, monkeypatch, run_events):
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", told.append)
    (real_models / "empty").mkdir()
    add(panel, monkeypatch, run_events, real_models / "empty")
    assert "model.json" in told[0]
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: "")
    panel.ui.addModelButton.click()
    assert panel.ui.addModelButton.enabled
    assert len(told) == 1


# Findings ---------------------------------------------------------------------------------------------


def test_no_nodule_at_the_threshold_says_the_highest_score_seen(panel, run_events):
    fakes.make_ct_node()
    run(panel, run_events)
    panel._parameter.threshold = 0.95
    assert panel.ui.statusLabel.text == "No nodule with a score of at least 0.95; the highest score seen is 0.90."
    panel._parameter.threshold = 0.85
    assert panel.ui.statusLabel.text == "1 nodule with a score of at least 0.85, 1 more below it."


def test_what_the_reader_did_to_the_findings_is_told_at_once(panel, run_events):
    fakes.make_ct_node()
    run(panel, run_events)
    findings = Findings(panel._parameter.segmentation)
    findings.reject(1)
    assert panel.ui.statusLabel.text == "1 nodule with a score of at least 0.50, 1 rejected."
    findings.add(None)
    assert panel.ui.statusLabel.text == "1 nodule with a score of at least 0.50, 1 by you, 1 rejected."
    panel._parameter.threshold = 0.95
    assert panel.ui.statusLabel.text.endswith("the highest score seen is 0.90, 1 by you.")
    panel._parameter.threshold = 0.5
    findings.reject(2)
    assert panel.ui.statusLabel.text == "No nodule with a score of at least 0.50, 1 by you, 2 rejected."


def test_no_nodule_at_all_says_so(panel, run_events):
    panel.core.mode = "nothing"
    fakes.make_ct_node()
    run(panel, run_events)
    assert panel.ui.statusLabel.text.startswith("No nodule")


def test_new_result_is_shown_at_its_models_threshold(panel, run_events):
    fakes.make_ct_node()
    panel._parameter.threshold = 0.1
    run(panel, run_events)
    assert panel._parameter.threshold == 0.5


# Several CTs ------------------------------------------------------------------------------------------


def test_each_ct_keeps_its_own_result(panel, run_events):
    first, second = fakes.make_ct_node("first"), fakes.make_ct_node("second")
    run(panel, run_events)
    of_first = panel._parameter.segmentation
    panel.ui.inputSelector.setCurrentNode(second)
    assert panel._parameter.segmentation is None
    assert panel.ui.statusLabel.text == ""
    run(panel, run_events)
    of_second = panel._parameter.segmentation
    panel.ui.inputSelector.setCurrentNode(first)
    assert panel._parameter.segmentation is of_first
    assert panel._parameter.heterogeneity is SceneResults.heterogeneityOf(of_first)
    run_events(lambda: of_first.GetDisplayVisibility() and not of_second.GetDisplayVisibility())


def test_each_ct_keeps_its_own_threshold(panel, run_events):
    first, second = fakes.make_ct_node("first"), fakes.make_ct_node("second")
    run(panel, run_events)
    panel._parameter.threshold = 0.8
    panel.ui.inputSelector.setCurrentNode(second)
    run(panel, run_events)
    assert panel._parameter.threshold == 0.5
    panel.ui.inputSelector.setCurrentNode(first)
    assert panel._parameter.threshold == 0.8


def test_renamed_nodes_still_belong_together(panel, run_events):
    first, second = fakes.make_ct_node("first"), fakes.make_ct_node("second")
    run(panel, run_events)
    result = panel._parameter.segmentation
    for node in (first, result):
        node.SetName("same name as another")
    panel.ui.inputSelector.setCurrentNode(second)
    panel.ui.inputSelector.setCurrentNode(first)
    assert panel._parameter.segmentation is result


def test_map_cannot_be_taken_for_a_ct(panel, run_events):
    fakes.make_ct_node()
    run(panel, run_events)
    panel._parameter.inputVolume = panel._parameter.heterogeneity
    assert not panel.ui.applyButton.enabled
    assert "heterogeneity map" in panel.ui.applyButton.toolTip


def test_color_picture_is_refused_in_the_tooltip(panel):
    import numpy as np

    picture = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.uint8), name="picture")
    image = picture.GetImageData()
    image.AllocateScalars(3, 3)
    panel._parameter.inputVolume = picture
    picture.GetImageData().Modified()
    panel._parameter.parameterNode.Modified()
    assert "3 values a voxel" in panel.ui.applyButton.toolTip


def test_undo_of_the_scene_takes_the_panel_along(panel, run_events):
    fakes.make_ct_node()
    node = panel._parameter.parameterNode
    node.SetUndoEnabled(True)
    slicer.mrmlScene.SetUndoOn()
    slicer.mrmlScene.SaveStateForUndo(node)
    panel.ui.opacitySlider.setValue(0.2)
    slicer.mrmlScene.Undo()
    slicer.mrmlScene.SetUndoOff()
    assert panel._parameter.overlayOpacity == pytest.approx(0.6)
    assert panel.ui.opacitySlider.value == pytest.approx(0.6)


# What goes wrong --------------------------------------------------------------------------------------


def test_full_disk_is_told_before_the_start(panel, monkeypatch):
    fakes.make_ct_node()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=0))
    with pytest.raises(OSError, match="free some space and try again"):
        panel.sections[0].onApply()
    assert panel.ui.applyButton.enabled
    assert panel.ui.applyButton.text == "Segment nodules"


def test_killed_core_is_told_and_the_panel_is_ready_again(panel, run_events):
    panel.core.mode = "crash"
    panel.core.python.write_text(panel.core.python.read_text().replace('\n"', '\nexec "'))
    fakes.make_ct_node()
    run(panel, run_events)
    assert "ended from outside" in panel.ui.statusLabel.text
    assert panel.ui.applyButton.enabled


def test_removed_ct_is_told_and_the_panel_is_ready_for_another(panel, run_events):
    panel.core.mode = "slow"
    ct = fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: "working" in panel.ui.statusLabel.text)
    slicer.mrmlScene.RemoveNode(ct)
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    assert not panel.ui.applyButton.enabled
    fakes.make_ct_node()
    assert panel.ui.applyButton.enabled


def test_reload_of_the_module_during_a_run_ends_it(panel, run_events):
    panel.core.mode = "deaf"
    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: "working" in panel.ui.statusLabel.text)
    folder = panel.logic._run.folder
    panel.cleanup()
    assert not panel.logic.isRunning
    assert not folder.exists()
