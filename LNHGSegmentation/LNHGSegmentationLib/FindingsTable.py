"""The table of findings: a thin hand on a Qt table, which knows no logic."""

from collections.abc import Callable

import qt
import slicer

from LNHGSegmentationLib import FindingsTexts

NUMBER, NAME = 0, 1
RIGHT_ALIGNED = (2, 6, 7)  # score, volume, HU
ROW_HEIGHT = 22
GREY = 128


class FindingsTable:
    """Shows rows, and says what the user does to them."""

    def __init__(
        self,
        widget: qt.QTableWidget,
        onCurrent: Callable[[int], None],
        onKept: Callable[[int, bool], None],
        onRenamed: Callable[[int, str], None],
    ) -> None:
        """Set the table up.

        :param widget: an empty table.
        :param onCurrent: called with the number of the finding that the user goes to, by click or key.
        :param onKept: called with number and state when a tick is set or removed.
        :param onRenamed: called with number and text when a name was edited.
        """
        self._widget = widget
        self._onCurrent, self._onKept, self._onRenamed = onCurrent, onKept, onRenamed
        self._rows: list[dict] = []
        self._filling, self._sort = False, (NUMBER, False)
        widget.setColumnCount(len(FindingsTexts.columns()))
        widget.setHorizontalHeaderLabels(FindingsTexts.columns())
        widget.verticalHeader().setVisible(False)
        widget.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        widget.horizontalHeader().setSortIndicatorShown(True)
        widget.horizontalHeader().setSectionsClickable(True)
        widget.horizontalHeader().sectionClicked.connect(self._onHeader)
        widget.currentCellChanged.connect(self._onCell)
        widget.cellClicked.connect(lambda row, _column: self._goTo(row))
        widget.itemChanged.connect(self._onItem)
        self._showSort()

    @property
    def rows(self) -> list[dict]:
        """The rows in the order shown."""
        return self._rows

    def show(self, rows: list[dict]) -> None:
        """Show rows, keeping order, selection and place."""
        selected, current = self.selected(), self.current()
        self._rows = self._sorted(rows)
        self._filling = True
        self._widget.setRowCount(len(self._rows))
        for index, row in enumerate(self._rows):
            self._fill(index, row)
        self._select(selected, current)
        self._filling = False

    def fit(self) -> None:
        """Make the columns as wide as their texts."""
        self._widget.resizeColumnsToContents()

    def current(self) -> int | None:
        """Return the number of the finding that the user went to last."""
        index = self._widget.currentRow()
        return self._rows[index]["number"] if 0 <= index < len(self._rows) else None

    def selected(self) -> list[int]:
        """Return the numbers of the marked findings in the order shown."""
        indices = {index.row() for index in self._widget.selectionModel().selectedRows()}
        return [row["number"] for index, row in enumerate(self._rows) if index in indices]

    def select(self, number: int) -> None:
        """Go to a finding."""
        for index, row in enumerate(self._rows):
            if row["number"] == number:
                self._widget.setCurrentCell(index, NAME)
                self._widget.selectRow(index)

    def step(self, by: int) -> None:
        """Go to the next finding in the order shown, or to the one before; goes round."""
        if self._rows:
            index = self._widget.currentRow()
            index = (index + by) % len(self._rows) if index >= 0 else (0 if by > 0 else -1)
            self.select(self._rows[index]["number"])

    def editName(self) -> None:
        """Let the user type the current finding's name."""
        item = self._widget.item(self._widget.currentRow(), NAME)
        if item is not None:
            self._widget.editItem(item)

    def _fill(self, index: int, row: dict) -> None:
        for column, text in enumerate(FindingsTexts.cells(row)):
            item = self._widget.item(index, column) or self._newItem(index, column)
            item.setText(text)
            item.setToolTip(FindingsTexts.toolTip(row))
            item.setData(qt.Qt.ForegroundRole, None if row["kept"] else qt.QBrush(qt.QColor(GREY, GREY, GREY)))
        item = self._widget.item(index, NUMBER)
        item.setCheckState(qt.Qt.Checked if row["kept"] else qt.Qt.Unchecked)
        item.setData(qt.Qt.DecorationRole, row.get("color") and qt.QColor.fromRgbF(*row["color"]))

    def _newItem(self, index: int, column: int) -> qt.QTableWidgetItem:
        item = qt.QTableWidgetItem()
        flags = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
        if column == NUMBER:
            flags = flags | qt.Qt.ItemIsUserCheckable
        if column == NAME:
            flags = flags | qt.Qt.ItemIsEditable
        item.setFlags(flags)
        if column in RIGHT_ALIGNED:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        self._widget.setItem(index, column, item)
        return item

    def _sorted(self, rows: list[dict]) -> list[dict]:
        column, descending = self._sort
        keyed = [(FindingsTexts.sortKeys(row)[column], row) for row in rows]
        known = [pair for pair in keyed if not pair[0][0]]
        known.sort(key=lambda pair: pair[0], reverse=descending)
        return [row for _key, row in (*known, *(pair for pair in keyed if pair[0][0]))]

    def _select(self, numbers: list[int], current: int | None) -> None:
        selection, mode = self._widget.selectionModel(), qt.QItemSelectionModel
        selection.clear()
        for index, row in enumerate(self._rows):
            place = self._widget.model().index(index, NAME)
            if row["number"] == current:
                selection.setCurrentIndex(place, mode.NoUpdate)
            if row["number"] in numbers:
                selection.select(place, mode.Select | mode.Rows)

    def _showSort(self) -> None:
        column, descending = self._sort
        order = qt.Qt.DescendingOrder if descending else qt.Qt.AscendingOrder
        self._widget.horizontalHeader().setSortIndicator(column, order)

    def _onHeader(self, column: int) -> None:
        """Sort by a column, the other way round at the second click; measures begin with the largest."""
        before, descending = self._sort
        self._sort = column, not descending if column == before else column > NAME
        self._showSort()
        self.show(self._rows)

    def _onCell(self, row: int, _column: int, before: int, _columnBefore: int) -> None:
        if row != before:
            self._goTo(row)

    def _goTo(self, index: int) -> None:
        if not self._filling and 0 <= index < len(self._rows):
            self._onCurrent(self._rows[index]["number"])

    def _onItem(self, item: qt.QTableWidgetItem) -> None:
        if self._filling:
            return
        row = self._rows[item.row()]
        kept = item.checkState() == qt.Qt.Checked
        if item.column() == NUMBER and kept != row["kept"]:
            self._onKept(row["number"], kept)
        elif item.column() == NAME and item.text() != row["name"]:
            self._onRenamed(row["number"], item.text())


def colored(rows: list[dict], segmentation: slicer.vtkMRMLSegmentationNode) -> list[dict]:
    """Return rows with the key "color" more, that of their segment; None where there is none."""
    segments = [segmentation.GetSegmentation().GetSegment(row["segment_id"] or "") for row in rows]
    return [{**row, "color": segment and segment.GetColor()} for row, segment in zip(rows, segments, strict=True)]
