"""How one side is: a dot in its colour, its progress while it loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen
from PySide6.QtWidgets import QHBoxLayout, QWidget

from demos.chat.ui.look import label, tool
from demos.chat.viewmodel.wording import side_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from PySide6.QtGui import QPaintEvent

    from demos.chat.answering.states import SideState
    from demos.chat.ui.look import Look


class SideChip(QWidget):
    def __init__(
        self,
        look: Look,
        name: str,
        side: Literal["device", "cloud"],
        stop: Callable[[], None],
        again: Callable[[], None],
    ) -> None:
        super().__init__()
        self._name = name
        self._dot = _Dot(look, side)
        self._text = label(name, "muted")
        self._stop = tool(look, "close", f"Stop loading: {name}", stop)
        self._again = tool(look, "again", f"Start again: {name}", again)
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 0, 4, 0)
        row.setSpacing(5)
        for widget in (self._dot, self._text, self._stop, self._again):
            row.addWidget(widget)

    def show_state(self, state: SideState, *, broken: bool = False) -> None:
        self._dot.show_state(state, broken)
        self._stop.setVisible(state.under_way)
        self._again.setVisible(state.phase in ("failed", "stopped"))
        percent = f" {state.fraction:.0%}" if state.phase == "downloading" and state.fraction is not None else ""
        self._text.setText(self._name + percent)
        said = "unplugged" if broken else side_line(state)
        self.setToolTip(f"{self._name}: {said}")
        self.setAccessibleName(f"{self._name}: {said}")


class _Dot(QWidget):
    def __init__(self, look: Look, side: Literal["device", "cloud"]) -> None:
        super().__init__()
        self._look = look
        self._side = side
        self._state: SideState | None = None
        self._broken = False
        self.setFixedSize(14, 14)

    def show_state(self, state: SideState, broken: bool) -> None:
        self._state, self._broken = state, broken
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        state, colours = self._state, self._look.colours
        if state is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        own = QColor(colours.device if self._side == "device" else colours.cloud)
        circle = QRectF(2.5, 2.5, 9, 9)
        if state.phase == "ready" and not self._broken:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(own)
            painter.drawEllipse(circle)
        elif state.under_way:
            painter.setPen(QPen(QColor(colours.line), 2.4))
            painter.drawEllipse(circle)
            painter.setPen(QPen(own, 2.4))
            fraction = 0.25 if state.fraction is None else state.fraction
            painter.drawArc(circle, 90 * 16, int(-360 * 16 * fraction))
        else:
            bad = self._broken or state.phase == "failed"
            painter.setPen(QPen(QColor(colours.bad if bad else colours.muted), 1.6))
            painter.drawEllipse(circle)
            if bad:
                painter.drawLine(4, 10, 10, 4)
