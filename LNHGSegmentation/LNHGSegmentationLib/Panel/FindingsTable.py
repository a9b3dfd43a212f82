"""The table of findings: a thin hand on a Qt table, which knows no logic."""

import json
from collections.abc import Callable

import qt
import slicer
from LNHGLib.measurement.score_scale import MODEL
from slicer.i18n import tr as _

from LNHGSegmentationLib.Panel import FindingsTexts

NUMBER, NAME, SCORE, PLACE = (FindingsTexts.KEYS.index(key) for key in ("number", "name", "score", "place"))
RIGHT_ALIGNED = [FindingsTexts.KEYS.index(key) for key in ("score", "volume", "hu")]
SHOWN_AT_FIRST = ("number", "score", "place", "size", "volume")  # fit into Slicer's narrowest panel
SETTING = "LNHG/FindingsColumns"
ASCENDING, DESCENDING = "\N{BLACK UP-POINTING TRIANGLE}", "\N{BLACK DOWN-POINTING TRIANGLE}"
ROW_PADDING, FRAME = 8, 4  # pixels above and below the text of a row, of the table
MIN_ROWS, MAX_ROWS = 3, 8  # that the table is high
GRAY = 128
NO_COLOR = (0.0, 0.0, 0.0, 0.0)  # takes the room of one, so that the numbers stand below each other


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

        ``columnMenu`` shows and hides columns; ``scoreDecimals`` says how exactly scores are shown, ``scoreScale``
        what they mean.

        Args:
            widget: An empty table.
            onCurrent: Called with the number of the finding that the user goes to, by click or key.
            onKept: Called with number and state when a tick is set or removed.
            onRenamed: Called with number and text when a name was edited.
        """
        self._widget = widget
        self._onCurrent, self._onKept, self._onRenamed = onCurrent, onKept, onRenamed
        self._rows: list[dict] = []
        self._filling, self._sort, self._mayScroll = False, (NUMBER, False), False
        self.scoreDecimals, self.scoreScale = 2, MODEL
        self.columnMenu = qt.QMenu(_("Columns"), widget)
        header = widget.horizontalHeader()
        widget.setColumnCount(len(FindingsTexts.KEYS))
        widget.setHorizontalHeaderLabels(FindingsTexts.headers())
        widget.verticalHeader().setVisible(False)
        self._rowHeight = widget.fontMetrics().height() + ROW_PADDING
        widget.verticalHeader().setDefaultSectionSize(self._rowHeight)
        header.setFixedHeight(self._rowHeight)
        header.setSectionsClickable(True)
        header.sectionClicked.connect(self._onHeader)
        header.setContextMenuPolicy(qt.Qt.CustomContextMenu)
        header.customContextMenuRequested.connect(lambda place: self.columnMenu.popup(header.mapToGlobal(place)))
        try:
            shown = set(json.loads(slicer.app.userSettings().value(SETTING) or "[]")) & set(FindingsTexts.KEYS)
        except (TypeError, ValueError):
            shown = set()
        for column, (key, name) in enumerate(zip(FindingsTexts.KEYS, FindingsTexts.columns(), strict=True)):
            widget.horizontalHeaderItem(column).setToolTip(name)
            if column == NUMBER:  # it stays
                continue
            isShown = key in (shown or SHOWN_AT_FIRST)
            action = self.columnMenu.addAction(name)
            if column == SCORE:
                self._scoreAction = action
            action.setCheckable(True)
            action.setChecked(isShown)
            widget.setColumnHidden(column, not isShown)
            action.toggled.connect(lambda isShown, column=column: self._showColumn(column, isShown))
        self.setScores(MODEL, 2)
        self._fitColumns()
        widget.currentCellChanged.connect(self._onCell)
        widget.cellClicked.connect(lambda row, _column: self._goTo(row))
        widget.itemChanged.connect(self._onItem)
        self.show([])

    @property
    def rows(self) -> list[dict]:
        """The rows in the order shown."""
        return self._rows

    def setScores(self, scale: str, decimals: int) -> None:
        """Say what the scores of the rows shown next mean, and how exactly they are shown.

        Args:
            scale: What they mean, see `LNHGLib.measurement.score_scale`.
            decimals: Digits after the point.
        """
        self.scoreScale, self.scoreDecimals = scale, decimals
        self._scoreAction.setText(FindingsTexts.columns(scale)[SCORE])
        self._widget.horizontalHeaderItem(SCORE).setToolTip(FindingsTexts.scoreHelp(scale))
        self._showSort()

    def show(self, rows: list[dict]) -> None:
        """Show rows, keeping order, selection and place; findings without the value that is sorted by come last."""
        selected, current = self.selected(), self.current()
        column, descending = self._sort
        keyed = [(FindingsTexts.sortKeys(row)[column], row) for row in rows]
        known = sorted((pair for pair in keyed if not pair[0][0]), key=lambda pair: pair[0], reverse=descending)
        self._rows = [row for _key, row in (*known, *(pair for pair in keyed if pair[0][0]))]
        self._filling = True
        self._widget.setRowCount(len(self._rows))
        height = 1 + min(max(len(self._rows), MIN_ROWS), MAX_ROWS) + self._mayScroll
        self._widget.setFixedHeight(height * self._rowHeight + FRAME)
        for index, row in enumerate(self._rows):
            self._fill(index, row)
        selection, mode = self._widget.selectionModel(), qt.QItemSelectionModel
        selection.clear()
        for index, row in enumerate(self._rows):
            place = self._widget.model().index(index, self._leadingColumn())
            if row["number"] == current:
                selection.setCurrentIndex(place, mode.NoUpdate)
            if row["number"] in selected:
                selection.select(place, mode.Select | mode.Rows)
        self._filling = False

    def shownColumns(self) -> list[str]:
        """Return the keys of the columns that are shown."""
        return [key for column, key in enumerate(FindingsTexts.KEYS) if not self._widget.isColumnHidden(column)]

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
                self._widget.setCurrentCell(index, self._leadingColumn())
                self._widget.selectRow(index)

    def step(self, by: int) -> None:
        """Go to the next finding in the order shown, or to the one before; goes round."""
        if self._rows:
            index = self._widget.currentRow()
            index = (index + by) % len(self._rows) if index >= 0 else (0 if by > 0 else -1)
            self.select(self._rows[index]["number"])

    def editName(self) -> bool:
        """Let the user type the current finding's name; return whether its column is there to type in."""
        isShown = not self._widget.isColumnHidden(NAME)
        if isShown:
            self._widget.editItem(self._widget.item(self._widget.currentRow(), NAME))
        return isShown

    def _showColumn(self, column: int, isShown: bool) -> None:
        self._widget.setColumnHidden(column, not isShown)
        slicer.app.userSettings().setValue(SETTING, json.dumps(self.shownColumns()))
        self._fitColumns()
        self.show(self._rows)  # the current cell may be gone

    def _leadingColumn(self) -> int:
        """Return the column of the current cell: Qt's keys need one that is shown, F2 needs the name."""
        return NUMBER if self._widget.isColumnHidden(NAME) else NAME

    def _fitColumns(self) -> None:
        """Make columns as wide as their texts; the places take the rest where no column is shown in addition."""
        self._mayScroll = not set(self.shownColumns()) <= set(SHOWN_AT_FIRST)
        header = self._widget.horizontalHeader()
        for column in range(len(FindingsTexts.KEYS)):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        if not self._mayScroll:
            header.setSectionResizeMode(PLACE, qt.QHeaderView.Stretch)

    def _fill(self, index: int, row: dict) -> None:
        """Write a finding into a row, whose items are made at the first time."""
        for column, text in enumerate(FindingsTexts.cells(row, self.scoreDecimals, isNarrow=True)):
            item = self._widget.item(index, column)
            if item is None:
                item, flags = qt.QTableWidgetItem(), qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
                if column == NUMBER:
                    flags = flags | qt.Qt.ItemIsUserCheckable
                if column == NAME:
                    flags = flags | qt.Qt.ItemIsEditable
                item.setFlags(flags)
                if column in RIGHT_ALIGNED:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                self._widget.setItem(index, column, item)
            item.setText(text)
            item.setToolTip(FindingsTexts.toolTip(row))
            item.setData(qt.Qt.ForegroundRole, None if row["kept"] else qt.QBrush(qt.QColor(GRAY, GRAY, GRAY)))
        item = self._widget.item(index, NUMBER)
        item.setCheckState(qt.Qt.Checked if row["kept"] else qt.Qt.Unchecked)
        item.setData(qt.Qt.DecorationRole, qt.QColor.fromRgbF(*(row.get("color") or NO_COLOR)))

    def _showSort(self) -> None:
        """Mark the sorted column; Qt's own mark would take room in every header."""
        for column, text in enumerate(FindingsTexts.headers(self.scoreScale)):
            mark = f" {DESCENDING if self._sort[1] else ASCENDING}" if column == self._sort[0] else ""
            self._widget.horizontalHeaderItem(column).setText(text + mark)

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
        """Tell what the user did to a row when Qt is through with the item: the table is filled again then."""
        if self._filling:
            return
        number, column = self._rows[item.row()]["number"], item.column()
        kept, name = item.checkState() == qt.Qt.Checked, item.text()

        def tell() -> None:
            row = next((row for row in self._rows if row["number"] == number), None)
            if row is None:
                return  # the findings are gone meanwhile
            if column == NUMBER and kept != row["kept"]:
                self._onKept(number, kept)
            elif column == NAME and name != row["name"]:
                self._onRenamed(number, name)

        qt.QTimer.singleShot(0, tell)


def colored(rows: list[dict], segmentation: slicer.vtkMRMLSegmentationNode) -> list[dict]:
    """Return rows with the key "color" more, that of their segment; None where there is none.

    Args:
        rows: Of the findings.
        segmentation: Their node.
    """
    segments = [segmentation.GetSegmentation().GetSegment(row["segment_id"] or "") for row in rows]
    return [{**row, "color": segment and segment.GetColor()} for row, segment in zip(rows, segments, strict=True)]
