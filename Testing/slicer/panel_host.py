"""The real panel with a child process that plays the core."""

from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Panel.Widget import Widget
from LNHGSegmentationLib.Setup.PackageInstall import PackageInstall
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic


class InstallNothing(PackageInstall):
    """Plays PackageInstall: everything is there, or the user declines."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.refusal = 0, None

    def missing(self) -> list[str]:
        return []

    def ensure(self, onProgress, onEnded) -> bool:
        self.asked += 1
        if self.refusal:
            raise RuntimeError(self.refusal)
        return True


class LNHGSegmentationLogic(ScriptedLoadableModuleLogic):
    """Names the parameter node as the module does."""

    def getParameterNode(self):
        return Parameter(super().getParameterNode())


def make_panel(core) -> Widget:
    """Make the panel; it also has `core`, `logic` and `install` for the tests."""
    logic, install = SegmentationLogic(python=str(core.python)), InstallNothing()
    logic.models = lambda: {"lnhg-1mm": {"threshold": 0.5}, "paper": {"threshold": 0.3}}
    panel = Widget(logic, install, LNHGSegmentationLogic().getParameterNode)
    panel.core, panel.logic, panel.install = core, logic, install
    return panel
