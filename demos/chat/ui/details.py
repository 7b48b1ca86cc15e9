"""What happened: an answer's figures, its route and its timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QFrame, QGridLayout, QVBoxLayout, QWidget

from demos.chat.ui.look import label
from demos.chat.ui.timeline_strip import TimelineStrip
from demos.chat.viewmodel import figures

if TYPE_CHECKING:
    from PySide6.QtGui import QResizeEvent
    from PySide6.QtWidgets import QLabel

    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.answer import AnswerModel

_FIGURE_WIDTH = 128


class Details(QFrame):
    def __init__(self, look: Look) -> None:
        super().__init__()
        self.setObjectName("details")
        self.setAccessibleName("What happened")
        self._strip = TimelineStrip(look)
        self._route = label("", "muted", wrap=True)
        self._grid = _Figures()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 10, 14, 12)
        layout.setSpacing(8)
        layout.addWidget(self._strip)
        layout.addWidget(self._grid)
        layout.addWidget(self._route)

    def show_answer(self, answer: AnswerModel, price_per_million: float | None) -> None:
        self._strip.show_trace(answer.trace)
        report = answer.report
        self._grid.setVisible(report is not None)
        self._route.setVisible(report is not None)
        if report is not None:
            self._grid.show_figures(figures.figures(report, price_per_million))
            self._route.setText(figures.route(report))


class _Figures(QWidget):
    """As many columns as fit."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(10)
        self._grid.setVerticalSpacing(8)
        self._cells: list[QWidget] = []
        self._values: list[QLabel] = []
        self._columns = 0

    def show_figures(self, shown: list[figures.Figure]) -> None:
        if len(shown) != len(self._cells):
            self._make(shown)
        for value, figure in zip(self._values, shown, strict=True):
            value.setText(figure.value)
            value.setAccessibleName(f"{figure.label}: {figure.value}")

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange()

    def _make(self, shown: list[figures.Figure]) -> None:
        for cell in self._cells:
            cell.deleteLater()
        self._cells, self._values, self._columns = [], [], 0
        for figure in shown:
            cell = QWidget()
            cell.setToolTip(figure.hint)
            column = QVBoxLayout(cell)
            column.setContentsMargins(0, 0, 0, 0)
            column.setSpacing(0)
            value = label(figure.value, "figure")
            column.addWidget(value)
            column.addWidget(label(figure.label, "figure-label"))
            self._cells.append(cell)
            self._values.append(value)
        self._arrange()

    def _arrange(self) -> None:
        widest = max((cell.sizeHint().width() for cell in self._cells), default=0) + self._grid.horizontalSpacing()
        columns = max(2, min(5, self.width() // max(_FIGURE_WIDTH, widest)))
        if columns == self._columns or not self._cells:
            return
        self._columns = columns
        for index, cell in enumerate(self._cells):
            self._grid.addWidget(cell, index // columns, index % columns)
        for column in range(5):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
