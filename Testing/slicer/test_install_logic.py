"""Packages are looked for without loading them, and installed in the background when missing and agreed to."""

import slicer_host

slicer_host.start()

import json
import os
import sys
import tempfile
from pathlib import Path

import fakes
import pytest
import qt
import slicer
from LNHGLib.setup import package_list, room
from LNHGSegmentationLib.Panel.InstallSection import InstallSection
from LNHGSegmentationLib.Setup import PackageInstall as module
from LNHGSegmentationLib.Setup.PackageInstall import PackageInstall

pytestmark = pytest.mark.slow


TORCH = {"torch", "torchvision"}
ALL = TORCH | {"matplotlib", "safetensors", "anyascii"}
CPU_ONLY = ALL - TORCH | {"openvino"}
PLAYER = """#!/bin/sh
# Called like PythonSlicer: -m LNHGLib.packages check|install ...
cd "{folder}"
test "$3" = check && {{ cat said; exit $(cat status); }}
echo $$ "$@" >> calls
echo "PROGRESS 0.40 downloading torch, 100 of 250 MB"
while ! test -e go && ! test -e "$LNHG_CANCEL_FILE"; do sleep 0.05; done
test -e "$LNHG_CANCEL_FILE" && {{ echo "lnhg: cancelled by the user." >&2; exit 1; }}
test -e fails && {{ echo "lnhg: $(cat fails)" >&2; exit 1; }}
test -e lies || cp all present
cat mended > said; echo 0 > status
echo "All packages load: torch 2.15.0."
"""
MENDED = {"trying": None, "versions": {"torch": "2.15.0"}, "faults": {}}


class Host:
    """Plays the interpreter that checks and installs, what is there, and the user who is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, folder / "PythonSlicer"
        self.python.write_text(PLAYER.format(folder=folder))
        self.python.chmod(0o755)
        (folder / "all").write_text(" ".join(ALL))
        (folder / "mended").write_text(json.dumps(MENDED) + "\n")
        self.questions, self.errors, self.agrees = [], [], True
        self.has()
        self.says(MENDED)
        self.may_end()

    def has(self, *names: str) -> None:
        (self.folder / "present").write_text(" ".join(names))

    def says(self, *lines, status: int = 0) -> None:
        """Let the check print lines of JSON, or of text, and end."""
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (self.folder / "said").write_text("\n".join(text) + "\n")
        (self.folder / "status").write_text(str(status))

    def breaks(self, **faults: str) -> None:
        self.says({"trying": None, "versions": {}, "faults": faults}, status=1)

    def may_end(self, may: bool = True) -> None:
        """Whether an installation comes to its end."""
        (self.folder / "go").touch() if may else (self.folder / "go").unlink(missing_ok=True)

    def fails(self, sentence: str) -> None:
        (self.folder / "fails").write_text(sentence)

    @property
    def calls(self) -> list[list[str]]:
        """Process and arguments of each installation."""
        path = self.folder / "calls"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def missing(self, packages) -> list:
        present = (self.folder / "present").read_text().split()
        return [package for package in packages if package.name not in present]

    def confirm(self, text: str, _title: str) -> bool:
        self.questions.append(text)
        return self.agrees


@pytest.fixture
def host(monkeypatch, tmp_path, scene):
    """Its PyTorch extension can be found, and must never be loaded; temporary folders are its own."""
    (tmp_path / "PyTorchUtils.py").write_text("raise AssertionError('the PyTorch extension was loaded into Slicer')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    host = Host(tmp_path)
    monkeypatch.setattr(package_list, "missing", host.missing)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", host.confirm)
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: host.errors.append(text))
    monkeypatch.setattr(room.shutil, "which", lambda _name: None)  # no CUDA
    monkeypatch.setattr(room, "free_mb", lambda _folder: 80_000)
    return host


@pytest.fixture
def logic(host):
    logic = PackageInstall(python=str(host.python))
    logic.group = "segmentation"
    yield logic
    logic.cleanup()


@pytest.fixture
def cpu_only(host):
    """What is offered where no NVIDIA driver is: OpenVINO alone."""
    (host.folder / "all").write_text(" ".join(CPU_ONLY))
    (host.folder / "PyTorchUtils.py").unlink()
    logic = PackageInstall(python=str(host.python))
    yield logic
    logic.cleanup()


@pytest.fixture
def section(logic):
    section = InstallSection(logic)
    section.uiWidget.show()
    yield section
    section.cleanup()


@pytest.fixture
def install(logic, run_events):
    """Ask for the packages and wait; gives the outcome."""

    def ensure():
        outcomes = []
        assert not logic.ensure(lambda *_: None, outcomes.append)
        run_events(lambda: outcomes)
        return outcomes[0]

    return ensure


@pytest.fixture
def check(logic, run_events):
    def load():
        found = []
        logic.check(found.append)
        run_events(lambda: found)
        return found[0]

    return load


def refused(logic) -> str:
    """What the user is told when the packages cannot be installed."""
    with pytest.raises(RuntimeError) as told:
        logic.ensure(lambda *_: None, lambda _outcome: None)
    assert "\n" not in str(told.value)
    assert not logic.isWorking
    return str(told.value)


def test_nothing_is_asked_or_installed_or_loaded_when_everything_is_there(host, logic):
    host.has(*ALL)
    host.says("must not be started", status=9)
    assert logic.ensure(lambda *_: None, lambda _outcome: None)
    assert (host.calls, host.questions) == ([], [])


def test_question_names_the_packages_their_sizes_and_the_free_disk(host, install):
    install()
    [question] = host.questions
    assert all(f"   {name}\n" in question for name in ALL)
    assert "Download: about 280 MB. On the disk: about 1.3 GB; 80.0 GB are free in" in question
    assert str(room.package_folder()) in question
    assert question.endswith("GPU or CPU, by PyTorch, about 280 MB. Another choice is under Set-up.\nInstall now?")


def test_only_what_is_missing_is_asked_for(host, install):
    host.has(*ALL - {"safetensors"})
    install()
    assert "   safetensors\n" in host.questions[0]
    assert "torch" not in host.questions[0]


def test_packages_are_installed_in_a_process_of_their_own_and_none_is_loaded_into_slicer(host, install):
    """Neither torch nor the PyTorch extension, whose call loads torch, comes into Slicer's process."""
    before = set(sys.modules)
    assert install().state == "done"
    [call] = host.calls
    assert call[1:5] == ["-m", "LNHGLib.packages", "install", "segmentation"]
    assert "--yes" in call
    assert int(call[0]) != os.getpid()
    assert not (set(sys.modules) - before) & {"torch", "torchvision", "PyTorchUtils", "light_the_torch"}


def test_the_window_goes_on_while_packages_are_installed(host, logic, section, run_events):
    host.may_end(False)
    ticks, timer = [], qt.QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(20)
    logic.ensure(lambda *_: None, lambda _outcome: None)
    assert ticks == []  # it came back at once
    run_events(lambda: len(ticks) > 20 and section.ui.installProgressBar.value == 40)
    assert section.ui.installLabel.text == "Installing: downloading torch, 100 of 250 MB"
    assert section.ui.installProgressBar.visible
    assert not section.ui.repairButton.enabled
    host.may_end()
    run_events(lambda: not logic.isWorking)
    assert section.ui.installLabel.text == "All packages load: torch 2.15.0."
    assert not section.ui.installProgressBar.visible
    assert section.ui.repairButton.enabled


def test_an_installation_can_be_cancelled_and_leaves_no_process_and_no_folder(host, logic, section, run_events):
    host.may_end(False)
    outcomes = []
    logic.ensure(lambda *_: None, outcomes.append)
    run_events(lambda: section.ui.installProgressBar.value == 40)
    section.ui.installCancelButton.click()
    run_events(lambda: outcomes)
    assert outcomes[0].state == "cancelled"
    assert section.ui.installLabel.text == outcomes[0].message
    assert "installed anew the next time" in outcomes[0].message
    assert section.ui.installCollapsibleButton.collapsed  # the user wished it: nothing is wrong
    assert not section.ui.installCancelButton.visible
    assert not Path(f"/proc/{host.calls[0][0]}").exists()
    assert list((host.folder / "temporary").iterdir()) == []


def test_closing_the_panel_ends_an_installation(host, logic, run_events):
    host.may_end(False)
    logic.ensure(lambda *_: None, lambda _outcome: pytest.fail("it was reported"))
    run_events(lambda: host.calls)
    logic.cleanup()
    assert not Path(f"/proc/{host.calls[0][0]}").exists()
    assert list((host.folder / "temporary").iterdir()) == []


def test_declining_leaves_everything_as_it_is(host, logic):
    host.agrees = False
    assert refused(logic).startswith("Nothing was installed")
    assert host.calls == []


def test_too_little_room_is_said_before_anything_is_asked(host, logic, monkeypatch):
    monkeypatch.setattr(room, "free_mb", lambda _folder: 900)
    assert "900 MB are free in" in refused(logic)
    assert (host.questions, host.calls) == ([], [])


def test_a_slicer_that_may_not_be_written_is_said_before_anything_is_asked(host, logic, monkeypatch, tmp_path):
    monkeypatch.setattr(room, "package_folder", lambda: tmp_path / "not there")
    assert "cannot be written; start Slicer once as an administrator" in refused(logic)
    assert host.questions == []


def test_missing_pytorch_extension_is_named_with_the_cure(host, logic):
    (host.folder / "PyTorchUtils.py").unlink()
    assert "Extensions Manager" in refused(logic)
    assert host.questions == []


def test_a_failed_installation_is_one_sentence_and_opens_the_section(host, install, section):
    host.fails("The packages could not be downloaded, since this computer does not reach the package index.")
    assert section.ui.installCollapsibleButton.collapsed
    outcome = install()
    assert outcome.state == "failed"
    assert outcome.message.startswith("The packages could not be downloaded")
    assert section.ui.installLabel.text == outcome.message
    assert not section.ui.installCollapsibleButton.collapsed


def test_packages_that_are_not_found_after_installing_are_a_failure(host, install):
    (host.folder / "lies").touch()
    assert install().state == "failed"


def test_repair_installs_anew_what_does_not_load(host, section, run_events):
    host.has(*ALL)
    host.breaks(torch="ImportError: libcudnn.so.9: cannot open shared object file")
    section.ui.repairButton.click()
    run_events(lambda: host.calls)
    run_events(lambda: section.ui.repairButton.enabled)
    assert "   torch: ImportError: libcudnn.so.9" in host.questions[0]
    assert "matplotlib" not in host.questions[0]
    assert section.ui.installLabel.text == "All packages load: torch 2.15.0."


def test_repair_has_nothing_to_do_where_all_packages_load(host, section, run_events):
    host.has(*ALL)
    section.ui.repairButton.click()
    run_events(lambda: section.ui.repairButton.enabled)
    assert (host.calls, host.questions) == ([], [])
    assert "nothing to repair" in section.ui.installLabel.text


def test_failed_or_declined_repair_is_shown_in_one_message(host, section, run_events):
    host.fails("The packages could not be installed (No space left on device): try again.")
    section.ui.repairButton.click()
    run_events(lambda: host.errors)
    assert host.errors == ["The packages could not be installed (No space left on device): try again."]
    host.agrees = False
    section.ui.repairButton.click()
    run_events(lambda: len(host.errors) == 2)
    assert host.errors[1].startswith("Nothing was installed")
    assert section.ui.installLabel.text == host.errors[1]


def test_check_tells_versions_and_changes_nothing(host, section, run_events):
    host.has(*ALL)
    section.ui.checkButton.click()
    assert not section.ui.checkButton.enabled
    run_events(lambda: section.ui.checkButton.enabled)
    assert section.ui.installLabel.text == "All packages load: torch 2.15.0."
    host.breaks(matplotlib="ModuleNotFoundError: No module named 'matplotlib'")
    section.ui.checkButton.click()
    run_events(lambda: section.ui.checkButton.enabled)
    assert "matplotlib: ModuleNotFoundError" in section.ui.installLabel.text
    assert not section.ui.installCollapsibleButton.collapsed
    assert host.calls == []


def test_a_package_that_ends_the_process_is_named(host, check):
    host.says({"trying": "torch", "versions": {}, "faults": {}}, status=134)
    assert check().faults == {"torch": "loading it ended the process (status 134)"}
    host.says("Fatal Python error: no module named encodings", status=1)
    assert check().faults == {"torch": "Fatal Python error: no module named encodings"}


def test_packages_that_load_for_ever_are_ended(host, check, logic, monkeypatch):
    monkeypatch.setattr(module, "CHECK_LIMIT_MS", 500)
    host.python.write_text("#!/bin/sh\nexec sleep 60\n")
    assert "did not load within" in check().faults["torch"]
    assert not logic.isWorking


def test_a_computer_without_a_gpu_is_offered_openvino_alone(host, cpu_only, run_events):
    """Neither torch nor its extension nor light-the-torch, and the size is what pip takes beyond Slicer's packages."""
    section, outcomes = InstallSection(cpu_only), []
    assert [section.ui.packagesSelector.itemText(index) for index in range(2)] == [
        "CPU only, about 80 MB",
        "GPU or CPU, by PyTorch, about 280 MB",
    ]
    assert section.ui.packagesSelector.currentText == "CPU only, about 80 MB"
    assert section.ui.repairButton.text == "Install"
    assert not cpu_only.ensure(lambda *_: None, outcomes.append)
    run_events(lambda: outcomes)
    assert outcomes[0].state == "done"
    assert host.calls[0][1:5] == ["-m", "LNHGLib.packages", "install", "cpu"]
    [question] = host.questions
    assert all(f"   {name}\n" in question for name in CPU_ONLY)
    assert "torch" not in question.replace("PyTorch", "")
    assert "Download: about 80 MB." in question
    assert section.ui.repairButton.text == "Repair"
    assert cpu_only.missing() == []
    section.cleanup()


def test_a_gpu_is_offered_pytorch_first(host, monkeypatch):
    monkeypatch.setattr(room.shutil, "which", lambda _name: "/usr/bin/nvidia-smi")
    logic = PackageInstall(python=str(host.python))
    assert logic.group == "segmentation"
    assert logic.choices()["segmentation"] == "GPU or CPU, by PyTorch, about 3.5 GB"


@pytest.mark.parametrize(
    ("present", "group"), [(CPU_ONLY, "cpu"), (ALL, "segmentation"), (ALL | CPU_ONLY, "cpu"), (set(), "cpu")]
)
def test_openvino_or_pytorch_is_enough(host, present, group):
    host.has(*present)
    logic = PackageInstall(python=str(host.python))
    assert logic.group == group
    assert (logic.missing() == []) is bool(present)
    if present:
        assert logic.ensure(lambda *_: None, lambda _outcome: None)
    assert host.questions == []


def test_pytorch_can_be_added_to_openvino(host, run_events, monkeypatch):
    host.has(*CPU_ONLY)
    (host.folder / "all").write_text(" ".join(ALL | CPU_ONLY))
    logic, installed = PackageInstall(python=str(host.python)), []
    section, logic.onInstalled = InstallSection(logic), lambda: installed.append(logic.missing())
    assert section.ui.installLabel.text == "The Python packages are there."
    section.ui.packagesSelector.setCurrentIndex(1)
    assert section.ui.installLabel.text == "Not there yet: torch, torchvision."
    assert host.calls == []
    host.breaks(torch="ModuleNotFoundError: No module named 'torch'")
    section.ui.repairButton.click()
    run_events(lambda: installed)
    assert host.calls[0][4] == "segmentation"
    assert installed == [[]]
    section.cleanup()


def test_openvino_that_ends_the_process_is_named_and_repaired(host, cpu_only, run_events):
    host.has(*CPU_ONLY)
    host.says("Illegal instruction", status=132)
    told = []
    cpu_only.check(told.append)
    run_events(lambda: told)
    assert told[0].faults == {"openvino": "Illegal instruction"}
    cpu_only.repair(host.errors.append)
    run_events(lambda: host.calls)
    assert "   openvino\n" in host.questions[0]
    assert "matplotlib" not in host.questions[0]
    run_events(lambda: not cpu_only.isWorking)


def test_section_says_what_is_missing_before_the_first_run(host, logic):
    host.has(*TORCH)
    text = InstallSection(logic).ui.installLabel.text
    assert text.startswith("Not there yet: matplotlib")
    assert "You are asked" in text


def test_everything_is_found_and_loads_where_the_core_runs(scene, run_events):
    logic = PackageInstall(python=sys.executable)
    assert logic.missing() == []
    for group, names in (("segmentation", ALL), ("cpu", CPU_ONLY)):
        found, logic.group = [], group
        logic.check(found.append)
        run_events(lambda found=found: found)
        assert found[0].faults == {}
        assert set(found[0].versions) == names


@pytest.fixture
def waiting(host, panel, logic, run_events):
    """The panel after a click on "Segment nodules" without packages: they are being installed."""
    host.may_end(False)
    fakes.make_ct_node()
    panel.sections[0]._packageInstall = logic
    panel.ui.applyButton.click()
    run_events(lambda: panel.ui.progressBar.value == 40)
    return panel


def test_the_run_begins_when_its_packages_are_installed(host, waiting, run_events):
    assert waiting.ui.statusLabel.text == "downloading torch, 100 of 250 MB"
    assert waiting.ui.applyButton.text == "Cancel"
    assert not waiting.logic.isRunning
    host.may_end()
    run_events(lambda: waiting._parameter.segmentation)
    assert waiting.ui.applyButton.text == "Segment nodules"


def test_cancelling_the_installation_begins_no_run(host, waiting, run_events):
    waiting.ui.applyButton.click()
    run_events(lambda: waiting.ui.applyButton.text == "Segment nodules")
    assert waiting.ui.statusLabel.text.startswith("Cancelled: packages that were not finished")
    assert not waiting.logic.isRunning
    assert host.errors == []


def test_a_failed_installation_begins_no_run_and_is_shown_once(host, waiting, run_events):
    host.fails("The packages could not be downloaded.")
    host.may_end()
    run_events(lambda: host.errors)
    assert host.errors == [waiting.ui.statusLabel.text] == ["The packages could not be downloaded."]
    assert waiting.ui.applyButton.text == "Segment nodules"
    assert not waiting.logic.isRunning


def test_no_other_ct_is_segmented_when_its_own_has_gone(host, waiting, run_events):
    slicer.mrmlScene.Clear()
    fakes.make_ct_node()
    waiting.connectParameterNode()
    host.may_end()
    run_events(lambda: waiting.ui.applyButton.text == "Segment nodules")
    assert not waiting.logic.isRunning


def test_a_click_on_segment_during_a_repair_waits_for_it(host, panel, logic, run_events):
    host.may_end(False)
    fakes.make_ct_node()
    panel.sections[0]._packageInstall = logic
    logic.repair(host.errors.append)
    run_events(lambda: logic.isInstalling)
    panel.ui.applyButton.click()
    host.may_end()
    run_events(lambda: panel._parameter.segmentation)
    assert len(host.calls) == 1
