"""A question: a bubble at the right, its documents above, what can be done with it below."""

from __future__ import annotations

import html
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics, QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from demos.chat.ui.chip import Chip
from demos.chat.ui.look import tool
from demos.chat.ui.prose import Prose
from demos.chat.ui.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from PySide6.QtGui import QKeyEvent

    from demos.chat.ui.actions import Actions
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.messages import MessageModel

_WIDEST = 0.82
_EDITOR_HEIGHT = 110


class QuestionView(QWidget):
    def __init__(self, look: Look, message: MessageModel, place: tuple[int, int], actions: Actions) -> None:
        super().__init__()
        self.message = message
        self._look = look
        self._actions = actions
        self.setAccessibleName(f"You asked: {message.question}")
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 10, 0, 4)
        self._layout.setSpacing(5)
        for index, attachment in enumerate(message.attachments):
            chip = Chip(look, attachment, partial(actions.show_document, message.id, index))
            self._layout.addWidget(chip, 0, Qt.AlignmentFlag.AlignRight)
        self._bubble = QFrame()
        self._bubble.setObjectName("question")
        self._text = Prose(look, "Your question")
        inner = QVBoxLayout(self._bubble)
        inner.setContentsMargins(15, 10, 15, 10)
        inner.addWidget(self._text)
        if message.question:
            self._layout.addWidget(self._bubble, 0, Qt.AlignmentFlag.AlignRight)
            escaped = html.escape(message.question).replace("\n", "<br/>")
            self._text.show_html(f"<div>{escaped}</div>")
        buttons = QHBoxLayout()
        buttons.setSpacing(2)
        buttons.addStretch()
        buttons.addWidget(Versions(self, look, place, lambda step: actions.turn(message.id, step)))
        buttons.addWidget(tool(look, "copy", "Copy question", self._copy))
        buttons.addWidget(tool(look, "edit", "Edit and ask again", self.edit))
        self._buttons = QWidget()
        self._buttons.setLayout(buttons)
        buttons.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self._buttons)
        self._editor: _Editor | None = None
        look.dress(self)
        look.follow(self, self._fit)

    def fit(self, width: int) -> None:
        """The bubble is as wide as its text, and leaves room at the left."""
        self.setFixedWidth(width)
        self._fit()

    def edit(self) -> None:
        if self._editor is not None:
            self._editor.field.setFocus()
            return
        self._editor = _Editor(self.message.question, self._save, self._leave)
        self._bubble.hide()
        self._buttons.hide()
        self._layout.addWidget(self._editor)
        self._editor.field.setFocus()

    def _fit(self) -> None:
        widest = int(self.width() * _WIDEST) - 30
        metrics = QFontMetrics(self._text.font())
        longest = max((metrics.horizontalAdvance(line) for line in self.message.question.splitlines()), default=0)
        self._text.setFixedWidth(max(30, min(widest, longest + 6)))

    def _save(self, text: str) -> None:
        self._actions.edit(self.message.id, text)

    def _leave(self) -> None:
        if self._editor is not None:
            self._editor.deleteLater()
            self._editor = None
        self._bubble.setVisible(bool(self.message.question))
        self._buttons.show()

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.message.question)
        self._actions.said("Question copied")


class _Editor(QWidget):
    """Ctrl+Enter asks, Esc leaves everything as it is."""

    def __init__(self, text: str, save: Callable[[str], None], leave: Callable[[], None]) -> None:
        super().__init__()
        self.field = _Field(text, self)
        self._save, self._leave = save, leave
        self.field.setProperty("role", "field")
        self.field.setAccessibleName("Edit the question")
        self.field.setFixedHeight(_EDITOR_HEIGHT)
        ask = QPushButton("Ask again")
        ask.setProperty("role", "primary")
        ask.clicked.connect(self.save)
        cancel = QPushButton("Cancel")
        cancel.clicked.connect(self.leave)
        row = QHBoxLayout()
        row.addStretch()
        row.addWidget(cancel)
        row.addWidget(ask)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.field)
        layout.addLayout(row)

    def save(self) -> None:
        self._save(self.field.toPlainText())

    def leave(self) -> None:
        self._leave()


class _Field(QPlainTextEdit):
    def __init__(self, text: str, editor: _Editor) -> None:
        super().__init__(text)
        self._editor = editor
        self.setTabChangesFocus(True)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self._editor.leave()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and (
            event.modifiers() & Qt.KeyboardModifier.ControlModifier
        ):
            self._editor.save()
        else:
            super().keyPressEvent(event)
