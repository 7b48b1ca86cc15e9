"""Widgets side by side, in as many lines as they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QWidget

if TYPE_CHECKING:
    from PySide6.QtGui import QResizeEvent

_GAP = 6


class Flow(QWidget):
    def __init__(self) -> None:
        super().__init__()
        self._items: list[QWidget] = []

    def add(self, widget: QWidget) -> None:
        widget.setParent(self)
        self._items.append(widget)
        widget.show()
        self._arrange()

    def clear(self) -> None:
        for item in self._items:
            item.hide()
            item.deleteLater()
        self._items.clear()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange()

    def _arrange(self) -> None:
        x = y = line = 0
        for item in self._items:
            size = item.sizeHint()
            if x and x + size.width() > self.width():
                x, y, line = 0, y + line + _GAP, 0
            item.setGeometry(x, y, min(size.width(), max(self.width(), 60)), size.height())
            x, line = x + size.width() + _GAP, max(line, size.height())
        self.setFixedHeight(y + line)
