"""A desktop-like `slicer` on slicer-core: scene, logics and the Python names that only the application has.

MRML, segmentation, color and display classes and `slicer.util` are the real ones. `slicer.app`, `slicer.i18n`,
`slicer.parameterNodeWrapper` and `slicer.ScriptedLoadableModule` stand in, reduced to what the project uses.
"""

import dataclasses
import os
import sys
import tempfile
import types
import typing
import unittest
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


@dataclasses.dataclass
class WithinRange:
    minimum: float
    maximum: float


@dataclasses.dataclass
class Choice:
    choices: list


def parameterNodeWrapper(cls):
    """Turn annotations into properties kept in a vtkMRMLScriptedModuleNode, with the names of Slicer's own wrapper."""
    hints = typing.get_type_hints(cls, include_extras=True)
    cls.allParameters = {name: (hint, getattr(cls, name, None)) for name, hint in hints.items()}
    for name, (hint, default) in cls.allParameters.items():
        setattr(cls, name, _node_property(name) if _is_node(hint) else _value_property(name, hint, default))
    cls.__init__, cls.connectGui, cls.disconnectGui = _init, _connect_gui, _disconnect_gui
    return cls


def _is_node(hint) -> bool:
    return isinstance(hint, type) and issubclass(hint, slicer.vtkMRMLNode)


def _node_property(name: str) -> property:
    return property(
        lambda self: self.parameterNode.GetNodeReference(name),
        lambda self, node: self.parameterNode.SetNodeReferenceID(name, node.GetID() if node else None),
    )


def _value_property(name: str, hint, default) -> property:
    kind, *annotations = typing.get_args(hint) or (hint,)

    def read(self):
        text = self.parameterNode.GetParameter(name)
        return default if text == "" else text == "True" if kind is bool else kind(text)

    def write(self, value):
        for annotation in annotations:
            if isinstance(annotation, Choice) and value not in annotation.choices:
                raise ValueError(f"{value} is not in {annotation.choices}")
            if isinstance(annotation, WithinRange) and not annotation.minimum <= value <= annotation.maximum:
                raise ValueError(f"{value} is not within [{annotation.minimum}, {annotation.maximum}]")
        self.parameterNode.SetParameter(name, str(value))

    return property(read, write)


def _init(self, parameterNode) -> None:
    self.parameterNode, self._connections, self._updating = parameterNode, {}, False


def _connect_gui(self, gui) -> int:
    """Bind the widgets that carry the property SlicerParameterName, both ways."""
    bound = {}
    for widget in vars(gui).values():
        if widget.property("SlicerParameterName"):
            bound[widget.property("SlicerParameterName")] = _Connector(self, widget)

    def update(*_args) -> None:
        self._updating = True
        for connector in bound.values():
            connector.write()
        self._updating = False

    update()
    tag = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, update)
    self._connections[tag] = bound
    return tag


def _disconnect_gui(self, tag: int) -> None:
    self.parameterNode.RemoveObserver(tag)
    for connector in self._connections.pop(tag).values():
        connector.disconnect()


SIGNALS = {
    "QCheckBox": "stateChanged",
    "QComboBox": "currentIndexChanged",
    "QDoubleSpinBox": "valueChanged",
    "ctkSliderWidget": "valueChanged",
}


class _Connector:
    """One widget bound to one parameter, in the manner of Slicer's GUI connectors."""

    def __init__(self, wrapper, widget) -> None:
        self._wrapper, self._widget = wrapper, widget
        self._name = widget.property("SlicerParameterName")
        self._kind = type(widget).__name__
        self._signal = getattr(widget, SIGNALS.get(self._kind, "currentNodeChanged"))
        if self._kind == "QComboBox":
            annotations = typing.get_args(wrapper.allParameters[self._name][0])[1:]
            self._choices = next(a.choices for a in annotations if isinstance(a, Choice))
            widget.clear()
            widget.addItems(self._choices)
        self._signal.connect(self._changed)

    def disconnect(self) -> None:
        self._signal.disconnect(self._changed)

    def write(self) -> None:
        value = getattr(self._wrapper, self._name)
        if self._kind == "QComboBox":
            self._widget.currentIndex = self._choices.index(value)
        elif self._kind == "qMRMLNodeComboBox":
            self._widget.setCurrentNode(value)
        elif self._kind == "QCheckBox":
            self._widget.checked = value
        else:
            self._widget.value = value

    def _changed(self, *_args) -> None:
        if self._wrapper._updating:
            return
        if self._kind == "QComboBox":
            value = self._choices[self._widget.currentIndex]
        elif self._kind == "qMRMLNodeComboBox":
            value = self._widget.currentNode()
        else:
            value = self._widget.checked if self._kind == "QCheckBox" else self._widget.value
        setattr(self._wrapper, self._name, value)


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
