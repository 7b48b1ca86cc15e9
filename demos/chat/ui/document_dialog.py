"""A document as the models read it, with what the device read of it marked where that was a part."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from PySide6.QtGui import QColor, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import QDialog, QPlainTextEdit, QTextEdit, QVBoxLayout, QWidget

from demos.chat.ui.look import label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demos.chat.history.records import Attachment
    from demos.chat.ui.look import Look


_LONGEST_LINE = 2_000


class DocumentDialog(QDialog):
    def __init__(
        self, parent: QWidget, look: Look, attachment: Attachment, read: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """`read`: characters that the device read; None where it was to read all."""
        super().__init__(parent)
        self.setWindowTitle(attachment.name)
        self.resize(min(720, parent.width() - 60), min(560, parent.height() - 60))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(18, 16, 18, 18)
        layout.addWidget(label(attachment.name, "h2", wrap=True))
        words = f"{len(attachment.text.split()):,} words, as the models read it"
        if read is not None:
            share = sum(stop - start for start, stop in read) / max(1, len(attachment.text))
            words += f"; marked is the {share:.0%} that this device read, as the cloud found the rest did not matter"
        layout.addWidget(label(words, "muted", wrap=True))
        shown, breaks = _broken(attachment.text)
        self.text = QPlainTextEdit(shown)
        self.text.setProperty("role", "field")
        self.text.setReadOnly(True)
        self.text.setAccessibleName(f"Text of {attachment.name}")
        layout.addWidget(self.text)
        look.dress(self)
        if read:
            self._mark(attachment.text, breaks, read, look)

    def _mark(self, text: str, breaks: Sequence[int], read: Sequence[tuple[int, int]], look: Look) -> None:
        kept = QTextCharFormat()
        kept.setBackground(QColor(look.colours.kept))
        places = _places(text, breaks, [at for span in read for at in span])
        marks = []
        for start, stop in read:
            mark = QTextEdit.ExtraSelection()
            mark.format = kept
            cursor = QTextCursor(self.text.document())
            cursor.setPosition(places[start])
            cursor.setPosition(places[stop], QTextCursor.MoveMode.KeepAnchor)
            mark.cursor = cursor
            marks.append(mark)
        self.text.setExtraSelections(marks)
        first = QTextCursor(self.text.document())
        first.setPosition(places[read[0][0]])
        self.text.setTextCursor(first)
        self.text.centerCursor()


def _broken(text: str) -> tuple[str, list[int]]:
    """`text` with long lines broken, and where: Qt lays a line out as a whole, however little of it is in view."""
    parts, breaks, at = [], list[int](), 0
    for line in text.splitlines(keepends=True):
        while len(line) > _LONGEST_LINE:
            cut = line.rfind(" ", 0, _LONGEST_LINE) + 1 or _LONGEST_LINE
            parts += [line[:cut], "\n"]
            at += cut
            breaks.append(at)
            line = line[cut:]  # noqa: PLW2901 - the rest of it
        parts.append(line)
        at += len(line)
    return "".join(parts), breaks


def _places(text: str, breaks: Sequence[int], offsets: Sequence[int]) -> dict[int, int]:
    """Where characters of `text` are in what is shown, which counts in UTF-16 units and has breaks of its own."""
    places, before, units = dict[int, int](), 0, 0
    for offset in sorted(set(offsets)):
        units += len(text[before:offset].encode("utf-16-le", "surrogatepass")) // 2
        before = offset
        places[offset] = units + bisect.bisect_right(breaks, offset)
    return places
