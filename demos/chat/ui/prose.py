"""Rich text as tall as what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QTextOption
from PySide6.QtWidgets import QFrame, QSizePolicy, QTextBrowser

from demos.chat.ui.theme import document_style

if TYPE_CHECKING:
    from PySide6.QtGui import QResizeEvent, QWheelEvent

    from demos.chat.ui.look import Look


class Prose(QTextBrowser):
    """Selectable; a link opens outside. Never scrolls by itself, unless `sideways`, for code."""

    def __init__(self, look: Look, name: str, *, sideways: bool = False) -> None:
        super().__init__()
        self._look = look
        self._html = ""
        self.setAccessibleName(name)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setOpenLinks(False)
        self.anchorClicked.connect(_open)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        if sideways:
            self.setWordWrapMode(QTextOption.WrapMode.NoWrap)
        else:
            self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
            self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setTabChangesFocus(True)
        self.viewport().setAutoFillBackground(False)
        self.document().setDocumentMargin(0)
        self._sideways = sideways
        look.follow(self, self._draw)

    def show_html(self, html: str) -> None:
        if html != self._html:
            self._html = html
            self._draw()

    def sizeHint(self) -> QSize:
        return QSize(200, self.height())

    def minimumSizeHint(self) -> QSize:
        return QSize(40, 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def wheelEvent(self, event: QWheelEvent) -> None:
        # The transcript scrolls; code goes sideways.
        if self._sideways and event.angleDelta().x():
            super().wheelEvent(event)
        else:
            event.ignore()

    def _draw(self) -> None:
        document = self.document()
        document.setDefaultFont(self.font())
        document.setDefaultStyleSheet(document_style(self._look.colours, self._look.settings))
        selected = self.textCursor()
        keep = (selected.anchor(), selected.position()) if selected.hasSelection() else None
        document.setHtml(self._html)
        if keep:
            self._select(*keep)
        self._fit()

    def _select(self, anchor: int, position: int) -> None:
        """What was selected while the text grew behind it."""
        end = max(0, self.document().characterCount() - 1)
        cursor = self.textCursor()
        cursor.setPosition(min(anchor, end))
        cursor.setPosition(min(position, end), cursor.MoveMode.KeepAnchor)
        self.setTextCursor(cursor)

    def _fit(self) -> None:
        document = self.document()
        if not self._sideways:
            document.setTextWidth(max(1, self.viewport().width()))
        height = document.size().height()
        if self._sideways and document.idealWidth() > self.viewport().width():
            height += self.horizontalScrollBar().sizeHint().height()
        self.setFixedHeight(int(height + 0.999))


def _open(url: QUrl) -> None:
    if url.scheme() in ("http", "https", "mailto"):
        QDesktopServices.openUrl(url)
