"""Before the first question: what this is, and something to try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QPushButton, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from demos.chat.ui.look import label

if TYPE_CHECKING:
    from collections.abc import Callable

    from PySide6.QtGui import QResizeEvent

    from demos.chat.examples import Example
    from demos.chat.ui.look import Look


class Empty(QScrollArea):
    """Scrolls where a small window has no room for it."""

    def __init__(self, look: Look, ask: Callable[[Example], None]) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        page = QWidget()
        page.setObjectName("page")
        self._ask = ask
        self._look = look
        self._cards: list[_Card] = []
        self._layout = QVBoxLayout(page)
        self._layout.setSpacing(8)
        self._layout.addStretch(3)
        title = label("What would you like to know?", "h1", wrap=True)
        title.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        told = label(
            "The cloud begins the answer at once; this device reads along and finishes it. "
            "Drop a document here to ask about it.",
            "muted",
            wrap=True,
        )
        told.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self._layout.addWidget(title)
        self._layout.addWidget(told)
        self._layout.addSpacing(14)
        self._list = QVBoxLayout()
        self._list.setSpacing(8)
        self._layout.addLayout(self._list)
        self._layout.addStretch(4)
        self.setWidget(page)

    def show_examples(self, examples: list[Example]) -> None:
        for card in self._cards:
            card.deleteLater()
        self._cards = [_Card(example, self._ask) for example in examples]
        for card in self._cards:
            self._list.addWidget(card)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        margin = max(24, (self.width() - 600) // 2)
        self._layout.setContentsMargins(margin, 10, margin, 10)


class _Card(QPushButton):
    def __init__(self, example: Example, ask: Callable[[Example], None]) -> None:
        super().__init__()
        self.setProperty("role", "card")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(f"{example.title}: {example.question}")
        self.clicked.connect(lambda *_: ask(example))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(15, 10, 15, 11)
        layout.setSpacing(1)
        question = label(example.question, wrap=True)
        under = label(f"{example.title}  ·  about {example.tokens:,} tokens", "muted")
        for widget in (question, under):
            widget.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            layout.addWidget(widget)

    def sizeHint(self) -> QSize:
        layout = self.layout()
        return QSize(300, layout.heightForWidth(max(self.width(), 300)) if layout else 40)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        layout = self.layout()
        if layout is not None:
            self.setFixedHeight(layout.heightForWidth(self.width()))
