"""A document beside a question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy

from demos.chat.ui.icons import icon
from demos.chat.ui.look import label, tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from PySide6.QtGui import QKeyEvent, QMouseEvent

    from demos.chat.history.records import Attachment
    from demos.chat.ui.look import Look

_LONGEST_NAME = 34


class Chip(QFrame):
    """Opens the document on a click; `remove` takes it away, where given."""

    def __init__(
        self, look: Look, attachment: Attachment, show: Callable[[], None], remove: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self.setObjectName("chip")
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        words = len(attachment.text.split())
        self.setAccessibleName(f"Document {attachment.name}, {words:,} words")
        self.setToolTip("Show the document")
        self._show = show
        mark = QLabel()
        look.follow(mark, lambda: mark.setPixmap(icon("file", look.colours.accent).pixmap(18, 18)))
        name = attachment.name
        if len(name) > _LONGEST_NAME:
            name = name[: _LONGEST_NAME - 9] + "…" + name[-8:]
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 5, 6 if remove else 10, 5)
        layout.setSpacing(6)
        layout.addWidget(mark)
        layout.addWidget(label(name))
        layout.addWidget(label(f"{words:,} words", "muted"))
        if remove is not None:
            layout.addWidget(tool(look, "close", f"Remove {attachment.name}", remove))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if self.rect().contains(event.position().toPoint()):
            self._show()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self._show()
        else:
            super().keyPressEvent(event)
