"""What is said beside an answer: quiet notices, and problems that say what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from demos.chat.ui.icons import icon
from demos.chat.ui.look import label

if TYPE_CHECKING:
    from collections.abc import Callable

    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.problems import Problem


class NoticeLine(QFrame):
    """The answer goes on; this is why it looks different."""

    def __init__(self, look: Look, text: str) -> None:
        super().__init__()
        self.setObjectName("notice")
        self.setAccessibleName(text)
        mark = QLabel()
        look.follow(mark, lambda: mark.setPixmap(icon("note", look.colours.muted).pixmap(16, 16)))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(10, 6, 12, 6)
        layout.setSpacing(8)
        layout.addWidget(mark)
        layout.addWidget(label(text, wrap=True), 1)


class ProblemCard(QFrame):
    """It did not work; what it was, and what to do."""

    def __init__(self, look: Look, problem: Problem, retry: Callable[[], None], settings: Callable[[], None]) -> None:
        super().__init__()
        self.setObjectName("problem")
        self.setAccessibleName(f"{problem.title}. {problem.text}")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 11, 14, 12)
        layout.setSpacing(6)
        layout.addWidget(label(problem.title, "problem-title", wrap=True))
        if problem.text:
            layout.addWidget(label(problem.text, wrap=True))
        buttons = QHBoxLayout()
        again = QPushButton("Try again")
        again.clicked.connect(lambda *_: retry())
        buttons.addWidget(again)
        if problem.remedy == "settings":
            fix = QPushButton("Open settings")
            fix.clicked.connect(lambda *_: settings())
            buttons.addWidget(fix)
        buttons.addStretch()
        layout.addLayout(buttons)
