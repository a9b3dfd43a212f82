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
    QtWidgets.QDoubleSpinBox: {
        name: (name, f"set{name[0].upper()}{name[1:]}")
        for name in ("value", "minimum", "maximum", "singleStep", "decimals")
    },
    QtWidgets.QMenu: {"toolTipsVisible": ("toolTipsVisible", "setToolTipsVisible")},
    QtGui.QAction: {
        "enabled": ("isEnabled", "setEnabled"),
        "checked": ("isChecked", "setChecked"),
        "text": ("text", "setText"),
        "toolTip": ("toolTip", "setToolTip"),
    },
}

MARGIN, COLLAPSIBLE_MARGIN, SPACING = 6, 4, 3  # of Slicer's style (qSlicerStyle)
BOX_EXTRA = 14
"""What the box of a CTK slider is wider than a QDoubleSpinBox here.

With it, and as open sections of CTK are never narrower than their size hints, the panel of commit b361d9c is at least
412 pixels wide after a run ("8 of 14 shown") and its findings 400, as was measured in Slicer 5.12.3.
"""

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
    """A bar with an arrow and a title; a click hides or shows what is below.

    As CTK's it is never narrower than its size hint, and while collapsed takes the room of its title and a strip.
    """

    contentsCollapsed = QtCore.Signal(bool)
    BAR_PADDING, STRIP = 8, 10
    ARROW = 34  # what arrow, margins and frame add to the width of the title

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed, self._hidden = "", False, []
        self._bar = self.fontMetrics().height() + self.BAR_PADDING
        self.setContentsMargins(0, self._bar, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Minimum, QtWidgets.QSizePolicy.Preferred)

    def setText(self, text: str) -> None:
        self._text = text
        self.updateGeometry()

    def setCollapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            children = self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly)
            self._hidden = [child for child in children if not child.isHidden()]
        for child in self._hidden:
            child.setVisible(not collapsed)
        self.setMaximumHeight(self._bar + self.STRIP if collapsed else 16_777_215)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    text = QtCore.Property(str, lambda self: self._text, setText)
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, setCollapsed)

    def minimumSizeHint(self) -> QtCore.QSize:
        return self._hint(super().minimumSizeHint())

    def sizeHint(self) -> QtCore.QSize:
        return self._hint(super().sizeHint())

    def _hint(self, open_size: QtCore.QSize) -> QtCore.QSize:
        bar = QtCore.QSize(self.fontMetrics().horizontalAdvance(self._text) + self.ARROW, self._bar)
        return bar + QtCore.QSize(0, self.STRIP) if self._collapsed else open_size.expandedTo(bar)

    def mousePressEvent(self, event) -> None:
        if event.position().y() < self._bar:
            self.setCollapsed(not self._collapsed)

    def paintEvent(self, _event) -> None:
        painter, bar = QtGui.QPainter(self), QtCore.QRect(0, 0, self.width() - 1, self._bar - 2)
        painter.setPen(self.palette().color(QtGui.QPalette.Mid))
        painter.setBrush(self.palette().color(QtGui.QPalette.Button))
        painter.drawRoundedRect(bar, 3, 3)
        if not self._collapsed:
            painter.setBrush(QtCore.Qt.NoBrush)
            painter.drawRect(0, self._bar - 2, self.width() - 1, self.height() - self._bar + 1)
        painter.setPen(self.palette().color(QtGui.QPalette.ButtonText))
        painter.drawText(bar.adjusted(24, 0, 0, 0), QtCore.Qt.AlignVCenter, self._text)
        option = QtWidgets.QStyleOption()
        option.initFrom(self)
        option.rect = QtCore.QRect(6, (self._bar - 14) // 2, 12, 12)
        arrow = QtWidgets.QStyle.PE_IndicatorArrowRight if self._collapsed else QtWidgets.QStyle.PE_IndicatorArrowDown
        self.style().drawPrimitive(arrow, option, painter, self)
        painter.end()


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a box; as CTK's it keeps value and limits as they are, and the box shows `decimals` of them."""

    valueChanged = QtCore.Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._value, self._minimum, self._maximum, self._step = 0.0, 0.0, 99.99, 1.0
        self._slider, self._box = QtWidgets.QSlider(QtCore.Qt.Horizontal), QtWidgets.QDoubleSpinBox()
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(SPACING)
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._slider.valueChanged.connect(self._onSlider)
        self._box.valueChanged.connect(self._onBox)

    def setValue(self, value: float) -> None:
        value = min(max(value, self._minimum), self._maximum)
        changed, self._value = abs(value - self._value) > 1e-9 * self._step, value
        for widget in (self._slider, self._box):
            widget.blockSignals(True)
        self._slider.setRange(round(self._minimum / self._step), round(self._maximum / self._step))
        self._slider.setValue(round(value / self._step))
        self._box.setRange(self._minimum, self._maximum)
        self._box.setSingleStep(self._step)
        self._box.setValue(value)
        self._box.setMinimumWidth(self._box.sizeHint().width() + BOX_EXTRA)
        for widget in (self._slider, self._box):
            widget.blockSignals(False)
        if changed:
            self.valueChanged.emit(value)

    def _onSlider(self, step: int) -> None:
        """Go in whole steps from the value as it is."""
        self.setValue(self._value + (step - round(self._value / self._step)) * self._step)

    def _onBox(self, shown: float) -> None:
        """Take what was typed; a limit that is shown rounded stands for itself."""
        digits = self._box.decimals
        limits = {round(limit, digits): limit for limit in (self._maximum, self._minimum)}
        self.setValue(limits.get(round(shown, digits), shown))

    def _setLimits(self, minimum: float, maximum: float) -> None:
        self._minimum, self._maximum = minimum, maximum
        self.setValue(self._value)

    def _setStep(self, step: float) -> None:
        self._step = step
        self.setValue(self._value)

    def _setDecimals(self, decimals: int) -> None:
        self._box.setDecimals(decimals)
        self.setValue(self._value)
        self.valueChanged.emit(self._value)

    value = QtCore.Property(float, lambda s: s._value, setValue)
    minimum = QtCore.Property(float, lambda s: s._minimum, lambda s, value: s._setLimits(value, max(value, s._maximum)))
    maximum = QtCore.Property(float, lambda s: s._maximum, lambda s, value: s._setLimits(min(value, s._minimum), value))
    singleStep = QtCore.Property(float, lambda s: s._step, _setStep)
    decimals = QtCore.Property(int, lambda s: s._box.decimals, _setDecimals)


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
        _space_as_slicer(root)
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


def _space_as_slicer(root: ElementTree.Element) -> None:
    """Give the layouts that say nothing of it the margins and spaces of Slicer's style."""
    for widget in root.iter("widget"):
        for layout in widget.findall("layout"):
            margin = COLLAPSIBLE_MARGIN if widget.get("class") == "ctkCollapsibleButton" else MARGIN
            _set_defaults(layout, dict.fromkeys(("leftMargin", "topMargin", "rightMargin", "bottomMargin"), margin))
    for layout in root.iter("layout"):
        names = ("horizontalSpacing", "verticalSpacing") if layout.get("class") == "QFormLayout" else ("spacing",)
        _set_defaults(layout, dict.fromkeys(names, SPACING))


def _set_defaults(layout: ElementTree.Element, values: dict[str, int]) -> None:
    given = {each.get("name") for each in layout.findall("property")}
    for name, value in values.items():
        if name not in given:
            added = ElementTree.Element("property", name=name)
            ElementTree.SubElement(added, "number").text = str(value)
            layout.insert(0, added)


def _find(root: QtCore.QObject, name: str) -> QtCore.QObject:
    return root if root.objectName() == name else root.findChild(QtCore.QObject, name)
