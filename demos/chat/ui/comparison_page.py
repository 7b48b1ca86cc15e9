"""The same question on the device, in the cloud and split: three answers and their figures, side by side."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from demos.chat.ui.blocks import Blocks
from demos.chat.ui.look import label, tool
from demos.chat.ui.timeline_strip import TimelineStrip
from demos.chat.ui.waiting import Waiting
from demos.chat.viewmodel import figures
from demos.side_by_side.palette import TITLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from PySide6.QtWidgets import QLabel

    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.comparison import Column, ComparisonModel

#: Of one of the three.
_REDRAW_MS = 17
_STRIP_HEIGHT = 96
#: What tells the three apart.
_COMPARED = ("First token", "Speed", "Largest gap", "From the cloud", "From the device", "Cloud busy")


class ComparisonPage(QWidget):
    """Esc or the button goes back; what still runs is stopped then."""

    def __init__(self, look: Look, model: ComparisonModel, close: Callable[[], None]) -> None:
        super().__init__()
        self.setObjectName("page")
        self.setAccessibleName("Comparison: on device, in cloud, split")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._look = look
        self._model = model
        self._columns = [_ColumnView(look, column, number) for number, column in enumerate(model.columns)]
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REDRAW_MS)
        self._timer.timeout.connect(self._redraw_next)
        self._stale: deque[_ColumnView] = deque()
        self._forget = model.changed.subscribe(lambda _: self._redraw())
        above = QWidget()
        top = QHBoxLayout(above)
        top.setContentsMargins(0, 0, 0, 0)
        top.addWidget(tool(look, "left", "Back to the conversation", close, "Esc"))
        words = QVBoxLayout()
        words.setSpacing(0)
        words.addWidget(label("The same question, three ways", "h2"))
        question = " ".join(model.question.split())
        words.addWidget(label(question[:160] + ("…" if len(question) > 160 else ""), "muted", wrap=True))
        top.addLayout(words, 1)
        row = QHBoxLayout()
        row.setSpacing(10)
        for column in self._columns:
            row.addWidget(column, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 12, 16, 14)
        layout.setSpacing(10)
        layout.addWidget(above)
        layout.addLayout(row, 1)
        for part in (above, *self._columns):
            look.dress(part)
        look.follow(self, self._redraw)

    @property
    def busy(self) -> bool:
        return self._model.busy

    @property
    def whole(self) -> bool:
        """Whether all three answers are."""
        return all(column.answer.state == "whole" for column in self._model.columns)

    def stop(self) -> None:
        self._forget()
        self._model.stop()

    def _redraw(self) -> None:
        self._stale.extend(column for column in self._columns if column not in self._stale)
        if not self._timer.isActive():
            self._timer.start()

    def _redraw_next(self) -> None:
        """One a turn of the event loop: three take longer than anyone should wait for a key."""
        # One scale for all, so that lengths can be compared.
        end = max(column.answer.trace.end for column in self._model.columns)
        self._stale.popleft().refresh(end)
        if self._stale:
            self._timer.start()


class _ColumnView(QFrame):
    def __init__(self, look: Look, column: Column, number: int) -> None:
        super().__init__()
        self.setObjectName("column-card")
        self._column = column
        name = TITLES[column.mode]
        self.setAccessibleName(f"Answered {name}")
        self._state = label("", "muted")
        self._blocks = Blocks(look, f"Answer {name}")
        self._waiting = Waiting(look)
        self._strip = TimelineStrip(look, _STRIP_HEIGHT, legend=False, after_ms=40 * number)
        self._values: dict[str, QLabel] = {}
        top = QHBoxLayout()
        top.addWidget(label(name[0].upper() + name[1:], "h2"))
        top.addStretch()
        top.addWidget(self._state)
        inside = QWidget()
        inside.setObjectName("column")
        text = QVBoxLayout(inside)
        text.setContentsMargins(0, 0, 6, 0)
        text.addWidget(self._waiting)
        text.addWidget(self._blocks)
        text.addStretch()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 11, 10, 11)
        layout.setSpacing(8)
        layout.addLayout(top)
        layout.addWidget(scroll, 1)
        layout.addWidget(self._strip)
        layout.addLayout(self._table())

    def refresh(self, end: float) -> None:
        column, answer = self._column, self._column.answer
        self._waiting.show_waiting(column.started and answer.state == "streaming" and not answer.text, "")
        self._blocks.show_text(answer.text, answer.runs)
        self._strip.show_trace(answer.trace, end=end)
        self._state.setText(_state(column))
        if answer.report is not None:
            for figure in figures.figures(answer.report):
                if figure.label in self._values:
                    self._values[figure.label].setText(figure.value)

    def _table(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(1)
        for row, name in enumerate(_COMPARED):
            value = label("–", "figure")
            value.setAlignment(Qt.AlignmentFlag.AlignRight)
            self._values[name] = value
            grid.addWidget(label(name, "muted"), row, 0)
            grid.addWidget(value, row, 1)
        return grid


def _state(column: Column) -> str:
    if not column.started:
        return "next"
    match column.answer.state:
        case "streaming":
            return "answering"
        case "failed":
            return "failed: " + (column.answer.problem.title if column.answer.problem else "")
        case "stopped":
            return "stopped"
        case _:
            return ""
