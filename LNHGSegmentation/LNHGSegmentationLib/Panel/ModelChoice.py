"""The model selector with its button that adds a model."""

from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic


class ModelChoice:
    """Fills the selector; an empty name stands for the default model, the first."""

    def __init__(self, logic: SegmentationLogic, ui, onChosen: Callable[[str], None]) -> None:
        """Bind the widgets ``modelSelector`` and ``addModelButton``.

        Args:
            logic: Knows the models.
            ui: Has the widgets.
            onChosen: Called with the name of the model that the user chose.
        """
        self._logic, self.ui, self._onChosen = logic, ui, onChosen
        self._names: list[str] = []
        self._isAdding, self._isEnabled = False, True
        self._fill()
        ui.modelSelector.currentIndexChanged.connect(self._onIndex)
        ui.addModelButton.clicked.connect(self.onAdd)

    def name(self, model: str) -> str:
        """Return the name of a model, that of the default one for an empty name."""
        return model or (self._names[0] if self._names else "")

    def show(self, model: str) -> None:
        """Select a model; one of a scene from another computer is listed and said to be missing."""
        selector = self.ui.modelSelector
        was = selector.blockSignals(True)
        if model and model not in self._names:
            self._names.append(model)
            selector.addItem(model if Path(model).is_dir() else _("{model} (not on this computer)").format(model=model))
        selector.setCurrentIndex(self._names.index(model) if model else 0)
        selector.blockSignals(was)

    def onAdd(self, *_args) -> None:
        """Ask for a model, a folder or a zip archive of one, and add it to the user's models."""
        chosen = qt.QFileDialog.getOpenFileName(
            self.ui.addModelButton, _("The model.json of a model, or a zip archive"), "", _("Models (model.json *.zip)")
        )
        if not chosen:
            return
        path = Path(chosen)
        self._setAdding(True)
        self._logic.addModel(path.parent if path.name == "model.json" else path, self._onAdded)

    def _onAdded(self, name: str, problem: str) -> None:
        self._setAdding(False)
        if problem:
            slicer.util.errorDisplay(_("The model was not added. {problem}").format(problem=problem))
            return
        self._fill()
        self._onChosen(name)

    def setEnabled(self, enabled: bool) -> None:
        """Let the user choose and add, or not."""
        self._isEnabled = enabled
        self.ui.modelSelector.setEnabled(enabled)
        self.ui.addModelButton.setEnabled(enabled and not self._isAdding)

    def _setAdding(self, adding: bool) -> None:
        self._isAdding = adding
        self.setEnabled(self._isEnabled)
        self.ui.addModelButton.setText(_("Checking the model...") if adding else _("Add model..."))

    def _fill(self) -> None:
        """List the models without taking any of them for a choice."""
        cards, selector = self._logic.models(), self.ui.modelSelector
        self._names = list(cards)
        was = selector.blockSignals(True)
        selector.clear()
        for index, (name, card) in enumerate(cards.items()):
            selector.addItem(name if index else _("{model} (default)").format(model=name))
            selector.setItemData(index, card.get("description", ""), qt.Qt.ToolTipRole)
        if not cards:
            self._names = [""]
            selector.addItem(_("none found: add a model"))
        selector.blockSignals(was)

    def _onIndex(self, *_args) -> None:
        index = self.ui.modelSelector.currentIndex
        if index >= 0:
            self._onChosen(self._names[index] if index else "")
