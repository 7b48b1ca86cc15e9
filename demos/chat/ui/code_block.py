"""Code in an answer, with its language and a button that copies it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout

from demos.chat.ui.icons import icon
from demos.chat.ui.look import tool
from demos.chat.ui.prose import Prose

if TYPE_CHECKING:
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.markdown import Code

_COPIED_FOR_MS = 1_500


class CodeBlock(QFrame):
    def __init__(self, look: Look) -> None:
        super().__init__()
        self.setObjectName("code")
        self._look = look
        self._code = ""
        self._language = QLabel()
        self._body = Prose(look, "Code", sideways=True)
        self._copy = tool(look, "copy", "Copy code", self._copy_code)
        top = QHBoxLayout()
        top.setContentsMargins(12, 5, 6, 0)
        top.addWidget(self._language)
        top.addStretch()
        top.addWidget(self._copy)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 10)
        layout.setSpacing(2)
        layout.addLayout(top)
        inner = QHBoxLayout()
        inner.setContentsMargins(12, 0, 8, 0)
        inner.addWidget(self._body)
        layout.addLayout(inner)

    def show_code(self, code: Code) -> None:
        self._code = code.text
        self._language.setText(code.language or "code")
        self._body.show_html(f"<pre>{code.html}</pre>")

    def _copy_code(self) -> None:
        QGuiApplication.clipboard().setText(self._code)
        self._copy.setIcon(icon("check", self._look.colours.accent))
        QTimer.singleShot(_COPIED_FOR_MS, self, lambda: self._copy.setIcon(icon("copy", self._look.colours.muted)))
