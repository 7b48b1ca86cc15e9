"""Three quiet dots while nothing can be shown yet; still ones where motion is not wanted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PySide6.QtCore import QRectF, Qt, QTimer
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from PySide6.QtGui import QPaintEvent

    from demos.chat.ui.look import Look

_FRAME_MS = 60
_PERIOD = 20


class Waiting(QWidget):
    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look
        self._text = ""
        self._frame = 0
        self._timer = QTimer(self)
        self._timer.setInterval(_FRAME_MS)
        self._timer.timeout.connect(self._turn)
        self.setFixedHeight(26)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Waiting for the answer")

    def show_waiting(self, waiting: bool, text: str) -> None:
        self._text = text
        self.setVisible(waiting)
        moving = waiting and not self._look.settings.reduced_motion
        if moving != self._timer.isActive():
            if moving:
                self._timer.start()
            else:
                self._timer.stop()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        for dot in range(3):
            phase = math.sin(2 * math.pi * (self._frame / _PERIOD - dot * 0.18))
            colour = QColor(self._look.colours.muted)
            colour.setAlphaF(0.6 if not self._timer.isActive() else 0.35 + 0.3 * (1 + phase) / 2)
            painter.setBrush(colour)
            painter.drawEllipse(QRectF(1 + dot * 12, 9, 7, 7))
        painter.setPen(QColor(self._look.colours.muted))
        painter.drawText(QRectF(46, 0, self.width() - 46, 25), Qt.AlignmentFlag.AlignVCenter, self._text)

    def _turn(self) -> None:
        self._frame = (self._frame + 1) % (_PERIOD * 100)
        self.update()
