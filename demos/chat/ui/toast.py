"""A word at the bottom that goes away by itself, and a bar at the top that stays until it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from demos.chat.ui.look import label, tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from PySide6.QtGui import QResizeEvent

    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.problems import Problem

_SHOWN_FOR_MS = 2_600
#: Of a banner's words: pixels, and of the window's height, that they may take at most.
_LEAST = 60
_SHARE = 0.24


class Toast(QFrame):
    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("toast")
        self._over = parent
        self._text = QLabel()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(14, 8, 14, 8)
        layout.addWidget(self._text)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.hide)
        self.hide()

    def say(self, text: str, above: int) -> None:
        """`above`: pixels from the parent's bottom."""
        self._text.setText(text)
        self.setAccessibleName(text)
        self.adjustSize()
        parent = self._over
        self.move((parent.width() - self.width()) // 2, parent.height() - self.height() - above)
        self.show()
        self.raise_()
        self._timer.start(_SHOWN_FOR_MS)


class Banner(QFrame):
    def __init__(self, look: Look, settings: Callable[[], None]) -> None:
        super().__init__()
        self.setObjectName("banner")
        self._title = label("", "problem-title", wrap=True)
        self._text = label("", wrap=True)
        self._fix = QPushButton("Open settings")
        self._fix.clicked.connect(lambda *_: settings())
        self._words = QWidget()
        words = QVBoxLayout(self._words)
        words.setContentsMargins(0, 0, 0, 0)
        words.setSpacing(2)
        words.addWidget(self._title)
        words.addWidget(self._text)
        # In a small window, or with large text, it must leave room for the conversation.
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._scroll.setWidget(self._words)
        for widget in (self._words, self._scroll.viewport()):
            widget.setAutoFillBackground(False)
        row = QHBoxLayout(self)
        row.setContentsMargins(18, 9, 12, 9)
        row.addWidget(self._scroll, 1)
        row.addWidget(self._fix)
        row.addWidget(tool(look, "close", "Close this message", self.hide))
        self.hide()

    def show_problem(self, problem: Problem) -> None:
        self._title.setText(problem.title)
        self._text.setText(problem.text)
        self._fix.setVisible(problem.remedy == "settings")
        self.setAccessibleName(f"{problem.title}. {problem.text}")
        self.show()
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        layout = self._words.layout()
        needed = layout.heightForWidth(self._scroll.viewport().width()) if layout else 0
        most = max(_LEAST, int(_SHARE * self.window().height()))
        self._scroll.setFixedHeight(max(0, min(needed, most)))
