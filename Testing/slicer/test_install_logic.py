"""Packages are looked for without importing them and installed only when missing and agreed to."""

import slicer_host

slicer_host.start()

import sys
import types
from pathlib import Path

import pytest
from LNHGSegmentationLib import InstallLogic as module
from LNHGSegmentationLib.InstallLogic import InstallLogic


class Host:
    """Plays the package finder, the PyTorch extension and slicer.packaging."""

    def __init__(self, present: set[str]) -> None:
        self.present, self.calls, self.agrees = present, [], True

    def find_spec(self, name: str):
        return name if name in self.present else None

    def installTorch(self, **options):
        self.calls.append(("torch", options))
        if not self.agrees:
            return None
        self.present |= set(module.PYTORCH)
        return types.ModuleType("torch")

    def load_requirements(self, path: Path) -> list[str]:
        return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]

    def pip_ensure(self, requirements: list[str], requester: str) -> None:
        self.calls.append(("pip", requirements, requester))
        self.present |= set(module.PACKAGES)


@pytest.fixture
def host(monkeypatch):
    host = Host(set())
    monkeypatch.setattr(module.importlib.util, "find_spec", host.find_spec)
    extension, packaging = types.ModuleType("PyTorchUtils"), types.ModuleType("slicer.packaging")
    extension.PyTorchUtilsLogic = lambda: host
    packaging.load_requirements, packaging.pip_ensure = host.load_requirements, host.pip_ensure
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    return host


def test_nothing_is_installed_when_everything_is_there(host):
    host.present |= {*module.PYTORCH, *module.PACKAGES}
    InstallLogic().ensure()
    assert host.calls == []


def test_torch_comes_from_the_pytorch_extension_after_asking(host):
    host.present |= set(module.PACKAGES)
    InstallLogic().ensure()
    [(kind, options)] = host.calls
    assert kind == "torch"
    assert options["askConfirmation"] is True
    assert options["torchVersionRequirement"].startswith(">=")


def test_other_packages_come_from_the_requirement_list_and_never_torch(host):
    host.present |= set(module.PYTORCH)
    InstallLogic().ensure()
    [(kind, requirements, requester)] = host.calls
    assert kind == "pip"
    assert "LNHG" in requester
    assert not any(line.startswith(("torch", "numpy", "SimpleITK")) for line in requirements)
    assert all(">=" in line and "==" not in line for line in requirements)


def test_declined_torch_stops_before_anything_else_is_installed(host):
    host.agrees = False
    with pytest.raises(RuntimeError, match="PyTorch was not installed"):
        InstallLogic().ensure()
    assert [call[0] for call in host.calls] == ["torch"]


def test_missing_pytorch_extension_is_named_with_the_cure(host, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(RuntimeError, match="Extensions Manager"):
        InstallLogic().ensure()


def test_everything_is_found_where_the_core_runs():
    assert InstallLogic().missing() == []
