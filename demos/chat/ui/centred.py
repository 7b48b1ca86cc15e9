"""A widget in the middle of the page, as wide as the transcript's column and no wider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QVBoxLayout, QWidget

from demos.chat.ui.transcript import COLUMN, MARGIN

if TYPE_CHECKING:
    from PySide6.QtGui import QResizeEvent


class Centred(QWidget):
    def __init__(self, widget: QWidget, above: int = 4, below: int = 14) -> None:
        super().__init__()
        self._above, self._below = above, below
        self._layout = QVBoxLayout(self)
        self._layout.addWidget(widget)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        # A little wider than the text, so that the frame's inside lines up with it.
        margin = max(MARGIN - 8, (self.width() - COLUMN) // 2 - 14)
        self._layout.setContentsMargins(margin, self._above, margin, self._below)
