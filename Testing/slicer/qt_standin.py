"""Modules `qt` and `ctk` on PySide6, as far as the project's panel uses PythonQt.

PythonQt gives Qt properties as Python attributes (`button.enabled`) beside the setters, PySide6 gives methods; the
properties in `PROPERTIES` are put onto PySide6's classes. Stand-ins prove the panel's logic and wiring, not PythonQt's
or CTK's own behavior.
"""

import ctypes
import os
import sys
import types
import xml.etree.ElementTree as ElementTree

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

PROPERTIES = {
    QtCore.QObject: {"name": ("objectName", "setObjectName")},
    QtWidgets.QWidget: {
        "enabled": ("isEnabled", "setEnabled"),
        "visible": ("isVisible", "setVisible"),
        "toolTip": ("toolTip", "setToolTip"),
    },
    QtWidgets.QAbstractButton: {"checked": ("isChecked", "setChecked"), "text": ("text", "setText")},
    QtWidgets.QLabel: {"text": ("text", "setText")},
    QtWidgets.QLineEdit: {"text": ("text", "setText")},
    QtWidgets.QComboBox: {
        "currentIndex": ("currentIndex", "setCurrentIndex"),
        "currentText": ("currentText", "setCurrentText"),
        "count": ("count", None),
    },
    QtWidgets.QProgressBar: {"value": ("value", "setValue")},
    QtWidgets.QDoubleSpinBox: {"value": ("value", "setValue")},
}

SPARE_REFERENCES = [None, True, False] * 1_000_000
"""PySide6 drops references to these with many calls; before Python 3.12, where they became immortal, they run out."""
ctypes.pythonapi.Py_IncRef(ctypes.py_object(SPARE_REFERENCES))  # never freed, or they run out at the interpreter's end


def install() -> QtWidgets.QApplication:
    """Register `qt` and `ctk` and return the application, started if need be."""
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(sys.argv[:1])
    if "qt" in sys.modules:
        return application
    application.setStyle("Fusion")
    for owner, properties in PROPERTIES.items():
        for name, (getter, setter) in properties.items():
            setattr(owner, name, _property(owner, getter, setter))
    sys.modules["qt"], sys.modules["ctk"] = types.ModuleType("qt"), types.ModuleType("ctk")
    for module in (QtCore, QtGui, QtWidgets):
        vars(sys.modules["qt"]).update({name: getattr(module, name) for name in dir(module) if name.startswith("Q")})
    sys.modules["qt"].QUiLoader = UiLoader
    vars(sys.modules["ctk"]).update({name: cls for name, cls in CUSTOM_WIDGETS.items() if name.startswith("ctk")})
    return application


def _property(owner: type, getter: str, setter: str | None) -> property:
    read = getattr(owner, getter)
    write = getattr(owner, setter) if setter else None
    return property(lambda self: read(self), (lambda self, value: write(self, value)) if write else None)


class qMRMLWidget(QtWidgets.QWidget):
    mrmlSceneChanged = QtCore.Signal(object)

    def setMRMLScene(self, scene) -> None:
        self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Lists the scene's nodes of its types; without a None entry it always has one selected, as the real one."""

    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._nodes, self._last, self._settings = None, [], None, {}
        self.currentIndexChanged.connect(lambda _index: self._announce())

    def _setting(name, kind):
        def write(self, value):
            self._settings[name] = value

        return QtCore.Property(kind, lambda self: self._settings.get(name), write)

    nodeTypes = _setting("nodeTypes", "QStringList")
    noneEnabled, showChildNodeTypes = _setting("noneEnabled", bool), _setting("showChildNodeTypes", bool)
    addEnabled, removeEnabled = _setting("addEnabled", bool), _setting("removeEnabled", bool)

    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent)
        tags = [scene.AddObserver(event, lambda *_: self._refresh()) for event in events]
        self.destroyed.connect(lambda *_: [scene.RemoveObserver(tag) for tag in tags])
        self._refresh()

    def currentNode(self):
        return self._nodes[self.currentIndex] if 0 <= self.currentIndex < len(self._nodes) else None

    def setCurrentNode(self, node) -> None:
        self.setCurrentIndex(self._nodes.index(node) if node in self._nodes else -1)
        self._announce()

    def _refresh(self) -> None:
        current = self.currentNode()
        nodes = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        self.blockSignals(True)
        self._nodes = [node for node in nodes if node.GetClassName() in self.nodeTypes]
        self.clear()
        self.addItems([node.GetName() or "" for node in self._nodes])
        self.setCurrentIndex(self._nodes.index(current) if current in self._nodes else min(0, len(self._nodes) - 1))
        self.blockSignals(False)
        self._announce()

    def _announce(self) -> None:
        if self.currentNode() is not self._last:
            self._last = self.currentNode()
            self.currentNodeChanged.emit(self._last)


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A bar with an arrow and a title; a click hides or shows what is below."""

    contentsCollapsed = QtCore.Signal(bool)
    BAR = 24

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(0, self.BAR, 0, 0)

    def setText(self, text: str) -> None:
        self._text = text
        self.update()

    def setCollapsed(self, collapsed: bool) -> None:
        if collapsed != self._collapsed:
            self._collapsed = collapsed
            self.setMaximumHeight(self.BAR if collapsed else 16_777_215)
            self.contentsCollapsed.emit(collapsed)
            self.update()

    text = QtCore.Property(str, lambda self: self._text, setText)
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, setCollapsed)

    def mousePressEvent(self, event) -> None:
        if event.position().y() < self.BAR:
            self.setCollapsed(not self._collapsed)

    def paintEvent(self, _event) -> None:
        painter, bar = QtGui.QPainter(self), QtCore.QRect(0, 0, self.width() - 1, self.BAR - 2)
        painter.setPen(self.palette().color(QtGui.QPalette.Mid))
        painter.setBrush(self.palette().color(QtGui.QPalette.Button))
        painter.drawRoundedRect(bar, 3, 3)
        if not self._collapsed:
            painter.setBrush(QtCore.Qt.NoBrush)
            painter.drawRect(0, self.BAR - 2, self.width() - 1, self.height() - self.BAR + 1)
        painter.setPen(self.palette().color(QtGui.QPalette.ButtonText))
        painter.drawText(bar.adjusted(24, 0, 0, 0), QtCore.Qt.AlignVCenter, self._text)
        option = QtWidgets.QStyleOption()
        option.initFrom(self)
        option.rect = QtCore.QRect(6, 5, 12, 12)
        arrow = QtWidgets.QStyle.PE_IndicatorArrowRight if self._collapsed else QtWidgets.QStyle.PE_IndicatorArrowDown
        self.style().drawPrimitive(arrow, option, painter, self)
        painter.end()


class ctkSliderWidget(QtWidgets.QWidget):
    valueChanged = QtCore.Signal(float)
    STEPS = 1000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider, self._box = QtWidgets.QSlider(QtCore.Qt.Horizontal), QtWidgets.QDoubleSpinBox()
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._slider.setRange(0, self.STEPS)
        self._slider.valueChanged.connect(lambda step: self.setValue(step * self._box.maximum() / self.STEPS))
        self._box.valueChanged.connect(self._follow)

    def _follow(self, value: float) -> None:
        self._slider.blockSignals(True)
        self._slider.setValue(round(self.STEPS * value / (self._box.maximum() or 1)))
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    value = QtCore.Property(float, lambda s: s._box.value, setValue)
    minimum = QtCore.Property(float, lambda s: s._box.minimum(), lambda s, value: s._box.setMinimum(value))
    maximum = QtCore.Property(float, lambda s: s._box.maximum(), lambda s, value: s._box.setMaximum(value))
    singleStep = QtCore.Property(float, lambda s: s._box.singleStep(), lambda s, value: s._box.setSingleStep(value))


CUSTOM_WIDGETS = {cls.__name__: cls for cls in (qMRMLWidget, qMRMLNodeComboBox, ctkCollapsibleButton, ctkSliderWidget)}


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files with the stand-ins above; connections between them are made in Python, where their slots are."""

    def createWidget(self, className, parent=None, name=""):
        if className in CUSTOM_WIDGETS:
            widget = CUSTOM_WIDGETS[className](parent)
            widget.setObjectName(name)
            return widget
        if not hasattr(QtWidgets, className):
            raise RuntimeError(f"There is no stand-in for {className}: add it to qt_standin.py.")
        return super().createWidget(className, parent, name)

    def load(self, file, parent=None):
        root = ElementTree.fromstring(bytes(file.readAll()))
        connections = root.find("connections")
        root.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        loaded = super().load(buffer, parent)
        for each in connections:
            sender, signal, receiver, slot = (each.find(key).text for key in ("sender", "signal", "receiver", "slot"))
            source, target = (_find(loaded, name) for name in (sender, receiver))
            getattr(source, signal.partition("(")[0]).connect(getattr(target, slot.partition("(")[0]))
        return loaded


def _find(root: QtCore.QObject, name: str) -> QtCore.QObject:
    return root if root.objectName() == name else root.findChild(QtCore.QObject, name)
