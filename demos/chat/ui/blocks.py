"""Markdown as a column of prose and code; only what changed is drawn again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QVBoxLayout, QWidget

from demos.chat.ui.code_block import CodeBlock
from demos.chat.ui.prose import Prose
from demos.chat.viewmodel import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demos.chat.history.records import Run
    from demos.chat.ui.look import Look


class Blocks(QWidget):
    def __init__(self, look: Look, name: str) -> None:
        super().__init__()
        self._look = look
        self._name = name
        self._stream = markdown.MarkdownStream()
        self._shown: list[markdown.Block] = []
        self._widgets: list[Prose | CodeBlock] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(8)

    def show_text(self, text: str, runs: Sequence[Run]) -> None:
        blocks = self._stream.update(text, runs)
        for index, block in enumerate(blocks):
            if index < len(self._shown) and self._shown[index] == block:
                continue
            widget = self._widget(index, block)
            if isinstance(block, markdown.Code) and isinstance(widget, CodeBlock):
                widget.show_code(block)
            elif isinstance(block, markdown.Prose) and isinstance(widget, Prose):
                widget.show_html(block.html)
        for widget in self._widgets[len(blocks) :]:
            self._drop(widget)
        del self._widgets[len(blocks) :]
        self._shown = blocks

    def _widget(self, index: int, block: markdown.Block) -> Prose | CodeBlock:
        kind = CodeBlock if isinstance(block, markdown.Code) else Prose
        if index < len(self._widgets) and isinstance(self._widgets[index], kind):
            return self._widgets[index]
        widget = CodeBlock(self._look) if kind is CodeBlock else Prose(self._look, self._name)
        if index < len(self._widgets):
            self._drop(self._widgets[index])
            self._widgets[index] = widget
        else:
            self._widgets.append(widget)
        self._layout.insertWidget(index, widget)
        return widget

    def _drop(self, widget: QWidget) -> None:
        self._layout.removeWidget(widget)
        widget.hide()
        widget.deleteLater()
