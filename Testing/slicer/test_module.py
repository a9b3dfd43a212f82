"""The module file under its own self test."""

import slicer_host

slicer_host.start()

import shutil
import sys
import types

import pytest

import LNHGSegmentation as module

pytestmark = pytest.mark.slow


@pytest.fixture
def pythonslicer(monkeypatch):
    """Slicer's launcher is on the PATH, as inside Slicer."""
    monkeypatch.setattr(shutil, "which", lambda _name: sys.executable)


def test_metadata_names_category_and_purpose(scene):
    parent = types.SimpleNamespace()
    module.LNHGSegmentation(parent)
    assert parent.categories == ["Segmentation"]
    assert "nodule" in parent.title.lower()
    assert "research use" in parent.helpText


def test_widget_shell_opens_the_panel_and_cleans_up(scene):
    widget = module.LNHGSegmentationWidget()
    widget.setup()
    assert widget.panel.ui.applyButton.text == "Segment nodules"
    widget.cleanup()
    assert widget.panel is None


def test_reload_forgets_the_library(scene, monkeypatch):
    loaded = {name: sys.modules[name] for name in sys.modules if name.startswith("LNHGSegmentationLib")}
    widget = module.LNHGSegmentationWidget()
    widget.onReload()
    assert not any(name.startswith("LNHGSegmentationLib") for name in sys.modules)
    sys.modules.update(loaded)


def test_self_test_passes(scene, pythonslicer):
    module.LNHGSegmentationTest().runTest()
