"""Packages are looked for without loading them, installed only when missing and agreed to, and proved to load."""

import slicer_host

slicer_host.start()

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import qt
import slicer
from LNHGSegmentationLib import InstallLogic as module
from LNHGSegmentationLib import InstallRoom
from LNHGSegmentationLib.InstallLogic import InstallLogic
from LNHGSegmentationLib.InstallSection import InstallSection

TORCH = {"torch", "torchvision"}
OTHERS = {"matplotlib", "safetensors", "scikit-image"}
PLAY_CHECK = """#!/bin/sh
# Called like PythonSlicer: -m LNHGLib.packages
cat "{folder}/said"; exit $(cat "{folder}/status")
"""


class Host:
    """Plays pip, the PyTorch extension, the user who is asked, and the interpreter that loads the packages."""

    def __init__(self, folder: Path) -> None:
        self.present, self.calls, self.questions, self.errors = set(), [], [], []
        self.agrees, self.failure, self.faults = True, None, {}
        self._folder, self.python = folder, folder / "PythonSlicer"
        self.python.write_text(PLAY_CHECK.format(folder=folder))
        self.python.chmod(0o755)
        self.says({"trying": None, "versions": {"torch": "2.15.0"}, "faults": {}})

    def says(self, *lines, status: int = 0) -> None:
        """Let the interpreter print lines of JSON, or of text, and end."""
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (self._folder / "said").write_text("\n".join(text) + "\n")
        (self._folder / "status").write_text(str(status))

    def breaks(self, **faults: str) -> None:
        self.says({"trying": None, "versions": {}, "faults": faults}, status=1)

    def pip_check(self, requirement) -> bool:
        return requirement.name in self.present

    def pip_ensure(self, requirements: list, **options) -> None:
        self._install("pip", [each.name for each in requirements], options)

    def pip_install(self, requirements: list[str], **options) -> None:
        self._install("pip", requirements, options)

    def installTorch(self, **options) -> types.ModuleType:
        self._install("torch", sorted(TORCH), options)
        return types.ModuleType("torch")

    def uninstallTorch(self) -> None:
        self.calls.append(("uninstall", [], {}))

    def confirm(self, text: str, _title: str) -> bool:
        self.questions.append(text)
        return self.agrees

    def _install(self, how: str, names: list[str], options: dict) -> None:
        self.calls.append((how, names, options))
        if self.failure:
            raise self.failure
        self.present |= set(names)


@pytest.fixture
def host(monkeypatch, tmp_path, scene):
    host = Host(tmp_path)
    extension = types.ModuleType("PyTorchUtils")
    extension.PyTorchUtilsLogic = lambda: host
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    for name in ("pip_check", "pip_ensure", "pip_install"):
        monkeypatch.setattr(slicer.packaging, name, getattr(host, name))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", host.confirm)
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: host.errors.append(text))
    monkeypatch.setattr(InstallRoom, "hasNvidiaDriver", lambda: False)
    monkeypatch.setattr(InstallRoom, "freeMb", lambda _folder: 80_000)
    return host


@pytest.fixture
def logic(host):
    return InstallLogic(findPython=lambda: str(host.python))


@pytest.fixture
def section(logic):
    section = InstallSection(logic)
    yield section
    section.cleanup()


def test_nothing_is_asked_or_installed_or_loaded_when_everything_is_there(host, logic):
    host.present |= TORCH | OTHERS
    host.says("must not be started", status=9)
    logic.ensure()
    assert (host.calls, host.questions) == ([], [])


def test_question_names_the_packages_their_sizes_and_the_free_disk(host, logic):
    logic.ensure()
    [question] = host.questions
    assert all(f"   {name}\n" in question for name in TORCH | OTHERS)
    assert "Download: about 296 MB. On the disk: about 1.3 GB; 80.0 GB are free in" in question
    assert str(InstallRoom.packageFolder()) in question


def test_question_counts_cuda_where_the_extension_will_take_it(host, logic, monkeypatch):
    monkeypatch.setattr(InstallRoom, "hasNvidiaDriver", lambda: True)
    host.present |= OTHERS
    logic.ensure()
    assert "Download: about 3.5 GB. On the disk: about 7.5 GB" in host.questions[0]


def test_only_what_is_missing_is_asked_for(host, logic):
    host.present |= TORCH | OTHERS - {"safetensors"}
    logic.ensure()
    assert "   safetensors\n" in host.questions[0]
    assert "torch" not in host.questions[0]
    assert host.calls[0][1] == ["safetensors"]


def test_torch_comes_from_the_pytorch_extension_which_does_not_ask_again(host, logic):
    host.present |= OTHERS
    logic.ensure()
    [(how, _names, options)] = host.calls
    assert how == "torch"
    assert options["askConfirmation"] is False
    assert options["torchVersionRequirement"].startswith(">=")


def test_other_packages_come_by_slicers_pip_from_the_requirement_list_and_never_torch(host, logic):
    host.present |= TORCH
    logic.ensure()
    [(how, names, options)] = host.calls
    assert how == "pip"
    assert set(names) == OTHERS
    assert options["prompt_install"] is False
    assert "LNHG" in options["requester"]
    assert all(each.specifier for each in logic._requirements())
    assert all(bound.operator == ">=" for each in logic._requirements() for bound in each.specifier)


def test_declining_leaves_everything_as_it_is(host, logic):
    host.agrees = False
    with pytest.raises(RuntimeError, match="Nothing was installed"):
        logic.ensure()
    assert host.calls == []


def test_too_little_room_is_said_before_anything_is_asked(host, logic, monkeypatch):
    monkeypatch.setattr(InstallRoom, "freeMb", lambda _folder: 900)
    with pytest.raises(RuntimeError, match=r"no room for the packages: 900 MB are free in .*, 1\.8 GB are needed"):
        logic.ensure()
    assert (host.questions, host.calls) == ([], [])


def test_a_slicer_that_may_not_be_written_is_said_before_anything_is_asked(host, logic, monkeypatch, tmp_path):
    monkeypatch.setattr(InstallRoom, "packageFolder", lambda: tmp_path / "not there")
    with pytest.raises(RuntimeError, match="cannot be written; start Slicer once as an administrator"):
        logic.ensure()
    assert host.questions == []


def test_missing_pytorch_extension_is_named_with_the_cure(host, logic, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(RuntimeError, match="Extensions Manager"):
        logic.ensure()


def test_packages_that_do_not_load_after_installing_are_a_failure(host, logic):
    host.breaks(torchvision="RuntimeError: operator torchvision::nms does not exist")
    with pytest.raises(RuntimeError, match=r"do not work \(torchvision: .*nms does not exist\): .* press Repair"):
        logic.ensure()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (subprocess.CalledProcessError(1, "pip"), "pip ended with status 1"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ImportError("DLL load failed while importing _C"), "DLL load failed"),
    ],
)
def test_a_failed_installation_is_one_sentence_with_the_cure_and_opens_the_section(host, logic, section, error, words):
    host.failure = error
    assert section.ui.installCollapsibleButton.collapsed
    with pytest.raises(RuntimeError, match="press Repair under Set-up") as told:
        logic.ensure()
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert section.ui.installLabel.text == str(told.value)
    assert not section.ui.installCollapsibleButton.collapsed


def test_repair_removes_a_torch_that_does_not_load_and_installs_it_anew(host, section):
    host.present |= TORCH | OTHERS
    host.breaks(torch="ImportError: libcudnn.so.9: cannot open shared object file")
    install = host.installTorch

    def cure(**options):
        host.says({"trying": None, "versions": {"torch": "2.15.0"}, "faults": {}})
        return install(**options)

    host.installTorch = cure
    section.ui.repairButton.click()
    assert [call[0] for call in host.calls] == ["uninstall", "torch"]
    assert "libcudnn.so.9" in host.questions[0]
    assert section.ui.installLabel.text == "All packages load: torch 2.15.0."
    assert section.ui.repairButton.enabled


def test_repair_replaces_a_broken_package_without_touching_what_it_needs(host, logic):
    host.present |= TORCH | OTHERS
    host.breaks(skimage="ImportError: numpy.core failed")
    with pytest.raises(RuntimeError, match="skimage"):
        logic.repair()  # the interpreter still says that it is broken
    [(how, names, _options)] = host.calls
    assert how == "pip"
    assert names[:2] == ["--force-reinstall", "--no-deps"]
    assert names[2].startswith("scikit-image>=")


def test_repair_installs_what_is_missing(host, section):
    host.present |= TORCH
    section.ui.repairButton.click()
    assert {name for call in host.calls for name in call[1]} == OTHERS


def test_repair_installs_what_is_missing_with_what_it_needs_itself_beside_what_is_broken(host, logic):
    host.present |= TORCH | OTHERS - {"scikit-image"}
    missing = "ModuleNotFoundError: No module named 'skimage'"
    host.breaks(skimage=missing, matplotlib="ImportError: _path.so: undefined symbol")
    with pytest.raises(RuntimeError, match="do not work"):
        logic.repair()  # the interpreter still says that they are broken
    anew, ensured = ([name.split(">=")[0] for name in names] for _how, names, _options in host.calls)
    assert anew == ["--force-reinstall", "--no-deps", "matplotlib"]
    assert ensured == ["scikit-image"]


def test_repair_takes_no_torch_off_where_there_is_none(host, logic):
    host.present |= OTHERS
    host.breaks(torch="ModuleNotFoundError: No module named 'torch'")
    with pytest.raises(RuntimeError, match="do not work"):
        logic.repair()
    assert [how for how, _names, _options in host.calls] == ["torch"]


def test_repair_has_nothing_to_do_where_all_packages_load(host, section):
    host.present |= TORCH | OTHERS
    section.ui.repairButton.click()
    assert (host.calls, host.questions) == ([], [])
    assert "nothing to repair" in section.ui.installLabel.text


def test_failed_repair_is_shown_in_one_message(host, section):
    host.failure = subprocess.CalledProcessError(2, "pip")
    with pytest.raises(RuntimeError):
        section.onRepair()
    [message] = host.errors
    assert message.startswith("The packages are not repaired.")
    assert "pip ended with status 2" in message


def test_check_tells_versions_and_changes_nothing(host, section):
    host.present |= TORCH | OTHERS
    section.ui.checkButton.click()
    assert section.ui.installLabel.text == "All packages load: torch 2.15.0."
    host.breaks(matplotlib="ModuleNotFoundError: No module named 'matplotlib'")
    section.ui.checkButton.click()
    assert "matplotlib: ModuleNotFoundError" in section.ui.installLabel.text
    assert not section.ui.installCollapsibleButton.collapsed
    assert host.calls == []


def test_a_package_that_ends_the_process_is_named(host, logic):
    host.says({"trying": "torch", "versions": {}, "faults": {}}, status=134)
    assert logic.check().faults == {"torch": "loading it ended the process (status 134)"}
    host.says("Fatal Python error: no module named encodings", status=1)
    assert logic.check().faults == {"torch": "Fatal Python error: no module named encodings"}


def test_packages_that_load_for_ever_are_ended(host, logic, monkeypatch):
    monkeypatch.setattr(module, "CHECK_LIMIT_S", 0.5)
    host.python.write_text("#!/bin/sh\nexec sleep 60\n")
    assert "did not load within" in logic.check().faults["torch"]


def test_events_go_on_while_packages_are_checked(host, logic):
    host.python.write_text(f"#!/bin/sh\nsleep 0.5\ncat {host.python.parent}/said\n")
    ticks, timer = [], qt.QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(50)
    logic.check()
    assert len(ticks) >= 3


def test_section_says_what_is_missing_before_the_first_run(host, logic):
    host.present |= TORCH
    text = InstallSection(logic).ui.installLabel.text
    assert text.startswith("Not there yet: matplotlib")
    assert "You are asked" in text


def test_everything_is_found_and_loads_where_the_core_runs():
    logic = InstallLogic(findPython=lambda: sys.executable)
    assert logic.missing() == []
    check = logic.check()
    assert check.faults == {}
    assert set(check.versions) == {"torch", "torchvision", "matplotlib", "safetensors", "skimage"}
