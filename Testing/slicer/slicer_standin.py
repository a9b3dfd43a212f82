"""A desktop-like `slicer` on slicer-core: scene, logics and the Python names that only the application has.

MRML, segmentation, color and display classes and `slicer.util` are the real ones. `slicer.app`, `slicer.i18n`,
`slicer.parameterNodeWrapper` and `slicer.ScriptedLoadableModule` stand in, reduced to what the project uses.
"""

import functools
import itertools
import math
import os
import sys
import tempfile
import types
import typing
import unittest
import weakref
from pathlib import Path

import qt_standin
import slicer
import vtk
from vtkmodules.vtkCommonCore import vtkCollection

LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
}
_kept_alive = []


def start():
    """Make the scene and the stand-ins; call once a process. Returns the application logic."""
    if hasattr(slicer, "app"):
        return slicer.app.applicationLogic()
    qapplication = qt_standin.install()
    vtk.vtkObject.GlobalWarningDisplayOff()
    application = _scene_and_logics()
    slicer.app = Application(qapplication, application)
    for name in ("qMRMLWidget", "qMRMLNodeComboBox"):
        setattr(slicer, name, qt_standin.CUSTOM_WIDGETS[name])
    _register("i18n", tr=lambda text: text, translate=lambda _context, text: text)
    _register("parameterNodeWrapper", parameterNodeWrapper=parameterNodeWrapper, WithinRange=WithinRange, Choice=Choice)
    _register("packaging", **{each.__name__: each for each in (load_requirements, pip_check, pip_ensure, pip_install)})
    _register("ScriptedLoadableModule", **{cls.__name__: cls for cls in SCRIPTED_CLASSES})
    return application


def _scene_and_logics():
    """Set slicer.mrmlScene and slicer.modules; return the application logic."""
    scene, application = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
    slicer.mrmlScene = scene
    application.SetMRMLScene(scene)
    application.GetColorLogic().SetMRMLScene(scene)
    application.GetColorLogic().AddDefaultColorNodes()
    application.SetSliceLogics(vtkCollection())
    application.SetViewLogics(vtkCollection())
    slicer.modules = types.SimpleNamespace()
    for name, cls in LOGICS.items():
        logic = getattr(slicer, cls)()
        logic.SetMRMLApplicationLogic(application)  # must come before the scene
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name, logic)
        setattr(slicer.modules, name.lower(), types.SimpleNamespace(logic=lambda logic=logic: logic))
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    _kept_alive.extend(_data_io(scene, application))
    return application


def _data_io(scene, application):
    remote, manager = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    remote.SetMRMLScene(scene)
    remote.SetMRMLApplicationLogic(application)
    remote.GetCacheManager().SetRemoteCacheDirectory(tempfile.gettempdir())
    manager.SetMRMLScene(scene)
    manager.SetMRMLApplicationLogic(application)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    return remote, manager


def _register(name: str, **members) -> None:
    module = types.ModuleType(f"slicer.{name}")
    vars(module).update(members)
    sys.modules[module.__name__] = module
    setattr(slicer, name, module)


class Application:
    """What the project and `slicer.util` ask of `slicer.app`."""

    applicationName = "Slicer"

    def __init__(self, qapplication, logic) -> None:
        self._qapplication, self._logic, self.connected = qapplication, logic, []
        self._folder = tempfile.TemporaryDirectory(prefix="LNHG-settings-")
        file = Path(self._folder.name) / "Slicer.ini"
        self._settings = qt_standin.QtCore.QSettings(str(file), qt_standin.QtCore.QSettings.IniFormat)

    def userSettings(self):
        return self._settings

    def connect(self, signal: str, slot) -> None:
        self.connected.append((signal, slot))

    def applicationLogic(self):
        return self._logic

    def processEvents(self) -> None:
        self._qapplication.processEvents()

    def testingEnabled(self) -> bool:
        return True

    def layoutManager(self) -> None:
        return None

    def startupEnvironment(self) -> dict[str, str]:
        return dict(os.environ)

    def setOverrideCursor(self, _cursor) -> None:
        """No cursor is shown off-screen."""

    def restoreOverrideCursor(self) -> None:
        """No cursor is shown off-screen."""


class WithinRange:
    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within [{self.minimum}, {self.maximum}]")


class Choice:
    def __init__(self, choices: list) -> None:
        self.choices = choices

    def validate(self, value) -> None:
        if value not in self.choices:
            raise ValueError(f"{value} is not in {self.choices}")


class _Parameter:
    """One annotated name of a wrapped class, by the rules of Slicer's serializers and validators."""

    def __init__(self, name: str, hint, default) -> None:
        self.name, self.default = name, default
        self.kind, *self.annotations = typing.get_args(hint) or (hint,)
        self.isNode = issubclass(self.kind, slicer.vtkMRMLNode)

    def annotation(self, cls: type):
        return next((each for each in self.annotations if isinstance(each, cls)), None)

    def write(self, node, value) -> None:
        if not isinstance(value, (self.kind, int) if self.kind is float else self.kind) and not (
            self.isNode and value is None
        ):
            raise TypeError(f"{self.name} must be of type {self.kind}, is {value!r}")
        for each in self.annotations:
            each.validate(value)
        node.SetParameter(self.name, "" if self.isNode else str(value))
        if self.isNode:
            node.SetNodeReferenceID(self.name, value.GetID() if value else None)

    def read(self, node):
        """Return the value; a node that has none gets the default."""
        if not node.HasParameter(self.name):
            self.write(node, self.default)
        if self.isNode:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return text == "True" if self.kind is bool else self.kind(text)


def parameterNodeWrapper(cls):
    """Turn annotations into properties kept in a vtkMRMLScriptedModuleNode, by the rules of Slicer 5.12's own wrapper.

    Values are read when the node says that it was modified, not each time; a value that is out of range is refused.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    cls.allParameters = {name: _Parameter(name, hint, getattr(cls, name, None)) for name, hint in hints.items()}
    for name in hints:
        setattr(cls, name, property(lambda self, name=name: self._values[name], functools.partial(_set, name)))
    return type(cls.__name__, (cls, _ParameterNode), {"__doc__": cls.__doc__, "__module__": cls.__module__})


def _set(name: str, wrapper, value) -> None:
    parameter, node = wrapper.allParameters[name], wrapper.parameterNode
    with slicer.util.NodeModify(node):
        parameter.write(node, value)
        wrapper._values[name] = parameter.read(node)


class _ParameterNode:
    """What the wrapper gives to each wrapped class."""

    def __init__(self, parameterNode) -> None:
        self.parameterNode, self._guis, self._updating, self._values = parameterNode, {}, False, {}
        self._read()
        self._observe(_ParameterNode._read)

    def _observe(self, react) -> int:
        """Follow the node without being kept alive by it: Python's garbage collection would break the observer."""
        weak = weakref.ref(self)
        return self.parameterNode.AddObserver(
            vtk.vtkCommand.ModifiedEvent, lambda *_: (me := weak()) is not None and react(me)
        )

    def _read(self) -> None:
        for name, parameter in self.allParameters.items():
            self._values[name] = parameter.read(self.parameterNode)

    def connectGui(self, gui) -> None:
        """Bind the widgets that carry the property SlicerParameterName; returns no tag (Slicer's issue 7547)."""
        widgets = [each for each in vars(gui).values() if each.property("SlicerParameterName")]
        self.connectParametersToGui({each.property("SlicerParameterName"): each for each in widgets})

    def connectParametersToGui(self, widgets: dict) -> int:
        """Bind widgets by the names of their parameters, both ways; returns a tag for `disconnectGui`."""
        connectors = [_Connector(self, self.allParameters[name], widget) for name, widget in widgets.items()]
        for each in connectors:
            each.write()
            each.connect()
        tag = self._observe(_ParameterNode._updateGui)
        self._guis[tag] = connectors
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        if tag in self._guis:
            self.parameterNode.RemoveObserver(tag)
            for each in self._guis.pop(tag):
                each.disconnect()

    def _updateGui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            with slicer.util.NodeModify(self.parameterNode):
                for each in itertools.chain(*self._guis.values()):
                    each.write()
        finally:
            self._updating = False


SIGNALS = {
    ("QCheckBox", bool): "stateChanged",
    ("QDoubleSpinBox", float): "valueChanged",
    ("ctkSliderWidget", float): "valueChanged",
}


class _Connector:
    """One widget bound to one parameter, by the rules of Slicer's GUI connectors."""

    def __init__(self, wrapper, parameter: _Parameter, widget) -> None:
        self._wrapper, self._parameter, self._widget = wrapper, parameter, widget
        kind = type(widget).__name__
        if kind == "qMRMLNodeComboBox" and parameter.isNode:
            self._signal = widget.currentNodeChanged
            return
        if (kind, parameter.kind) not in SIGNALS:
            raise RuntimeError(f"{kind} cannot be connected to {parameter.name} of {parameter.kind}.")
        self._signal = getattr(widget, SIGNALS[kind, parameter.kind])
        if parameter.kind is float:
            within = parameter.annotation(WithinRange)
            if within is None and kind == "ctkSliderWidget":
                raise RuntimeError(f"{parameter.name} has no range, which a ctkSliderWidget needs.")
            widget.minimum, widget.maximum = (within.minimum, within.maximum) if within else (-math.inf, math.inf)

    def connect(self) -> None:
        self._signal.connect(self._changed)

    def disconnect(self) -> None:
        self._signal.disconnect(self._changed)

    def write(self) -> None:
        value = getattr(self._wrapper, self._parameter.name)
        if self._parameter.isNode:
            self._widget.setCurrentNode(value)
        elif self._parameter.kind is bool:
            self._widget.checked = value
        else:
            self._widget.value = value

    def _changed(self, *_args) -> None:
        with slicer.util.NodeModify(self._wrapper.parameterNode):
            if self._wrapper._updating:
                return
            if self._parameter.isNode:
                value = self._widget.currentNode()
            else:
                value = self._widget.checked if self._parameter.kind is bool else self._widget.value
            setattr(self._wrapper, self._parameter.name, value)


def load_requirements(path) -> list:
    from packaging.requirements import Requirement

    lines = (line.strip() for line in Path(path).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def pip_check(requirement) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(requirement.name) in requirement.specifier
    except PackageNotFoundError:
        return False


def pip_ensure(requirements: list, **_options) -> None:
    raise AssertionError(f"A test would have installed {requirements}.")


def pip_install(requirements: list, **_options) -> None:
    raise AssertionError(f"A test would have installed {requirements}.")


class ScriptedLoadableModule:
    def __init__(self, parent) -> None:
        self.parent, self.moduleName = parent, type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None) -> None:
        self.parent = parent or qt_standin.qMRMLWidget()
        self.layout = self.parent.layout() or qt_standin.QtWidgets.QVBoxLayout(self.parent)

    def setup(self) -> None:
        """The real one adds the developer section."""

    def cleanup(self) -> None:
        """For the module to override."""

    def onReload(self) -> None:
        """The real one loads the module file anew."""


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetModuleName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def runTest(self) -> None:
        """For the module to override."""


SCRIPTED_CLASSES = (
    ScriptedLoadableModule,
    ScriptedLoadableModuleWidget,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

MODULE_FOLDER = Path(__file__).parents[2] / "LNHGSegmentation"
