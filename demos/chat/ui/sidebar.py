"""Conversations: new, searched, listed by day."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QSize, Qt, QTimer
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QInputDialog,
    QLineEdit,
    QListView,
    QMenu,
    QMessageBox,
    QPushButton,
    QToolButton,
    QVBoxLayout,
)

from demos.chat.ui.conversation_list import MORE, ConversationDelegate, ConversationRows
from demos.chat.ui.icons import icon
from demos.chat.ui.look import tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from PySide6.QtCore import QModelIndex, QObject, QPoint
    from PySide6.QtGui import QKeyEvent, QMouseEvent

    from demos.chat.history.records import Summary
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.app import AppModel

WIDTH = 248
_CLICKS = (QEvent.Type.MouseButtonPress, QEvent.Type.MouseButtonRelease, QEvent.Type.MouseButtonDblClick)
_SEARCH_AFTER_MS = 150
_LOOK_EVERY_MS = 2_000


class Sidebar(QFrame):
    def __init__(
        self, look: Look, app: AppModel, export: Callable[[str | None], None], import_: Callable[[], None]
    ) -> None:
        """`export` is of one conversation, or of all."""
        super().__init__()
        self.setObjectName("sidebar")
        self.setFixedWidth(WIDTH)
        self._look = look
        self._app = app
        self._export = export
        self._rows = ConversationRows()
        self._list = QListView()
        self._list.setObjectName("conversations")
        self._list.setAccessibleName("Conversations")
        self._list.setModel(self._rows)
        self._list.setItemDelegate(ConversationDelegate(look, self._list))
        self._list.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self._list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self._list.customContextMenuRequested.connect(self._menu)
        self._list.clicked.connect(self._open)
        self._list.activated.connect(self._open)
        self._list.setMouseTracking(True)
        self._list.installEventFilter(self)
        self._list.viewport().installEventFilter(self)
        self.search = QLineEdit()
        self.search.setObjectName("search")
        self.search.setPlaceholderText("Search")
        self.search.setAccessibleName("Search conversations")
        self.search.setClearButtonEnabled(True)
        self._searching = QTimer(self)
        self._searching.setSingleShot(True)
        self._searching.setInterval(_SEARCH_AFTER_MS)
        self._searching.timeout.connect(lambda: app.library.search(self.search.text()))
        self.search.textChanged.connect(lambda _: self._searching.start())
        new = QPushButton("New chat")
        new.setProperty("role", "new")
        new.setToolTip("New chat (Ctrl+N)")
        new.clicked.connect(lambda *_: app.new_chat())
        look.follow(new, lambda: new.setIcon(icon("plus", look.colours.accent)))
        new.setIconSize(QSize(18, 18))
        top = QHBoxLayout()
        top.addWidget(new, 1)
        top.addWidget(self._files_button(import_, export))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(9, 10, 8, 8)
        layout.setSpacing(6)
        layout.addLayout(top)
        layout.addWidget(self.search)
        layout.addWidget(self._list, 1)
        app.library.changed.subscribe(lambda _: self._refresh())
        app.shown.subscribe(lambda _: self._refresh())
        look.follow(self, self._list.viewport().update)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_EVERY_MS)
        self._timer.timeout.connect(app.library.look)
        self._timer.start()

    def _files_button(self, import_: Callable[[], None], export: Callable[[str | None], None]) -> QToolButton:
        menu = QMenu(self)
        menu.addAction("Import conversations …", import_)
        menu.addAction("Export all conversations …", lambda: export(None))
        button = tool(self._look, "more", "Import and export", lambda: None)
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setMenu(menu)
        return button

    def _refresh(self) -> None:
        library, current = self._app.library, self._app.current.id
        # What is being written is on the screen already.
        listed = [summary for summary in library.summaries if not (summary.unsent and summary.id == current)]
        self._rows.show_summaries(listed, time.time(), searching=bool(library.query))
        self._select()

    def _select(self) -> None:
        index = self._rows.index_of(self._app.current.id)
        if index is None:
            self._list.clearSelection()
        else:
            self._list.setCurrentIndex(index)

    def _open(self, index: QModelIndex) -> None:
        summary = self._rows.summary(index)
        if summary is not None:
            self._app.open(summary.id)

    def _menu(self, at: QPoint) -> None:
        # From the keyboard the menu is asked for anywhere, and is of the selected one.
        summary = self._rows.summary(self._list.indexAt(at)) or self._rows.summary(self._list.currentIndex())
        if summary is not None:
            self._menu_of(summary).exec(self._list.viewport().mapToGlobal(at))

    def _menu_of(self, summary: Summary) -> QMenu:
        menu = QMenu(self)
        muted = self._look.colours.muted
        library = self._app.library
        menu.addAction(icon("edit", muted), "Rename …", lambda: self._rename(summary))
        pinned = "Unpin" if summary.pinned else "Pin"
        menu.addAction(icon("pin", muted), pinned, lambda: library.pin(summary.id, not summary.pinned))
        menu.addAction(icon("export", muted), "Export …", lambda: self._export(summary.id))
        menu.addSeparator()
        menu.addAction(icon("trash", self._look.colours.bad), "Delete …", lambda: self._delete(summary))
        return menu

    def _rename(self, summary: Summary) -> None:
        title, ok = QInputDialog.getText(self, "Rename", "Title", text=summary.title)
        if ok:
            self._app.library.rename(summary.id, title)

    def _delete(self, summary: Summary) -> None:
        answer = QMessageBox.question(self, "Delete", f"Delete “{summary.title}”? This cannot be undone.")
        if answer is QMessageBox.StandardButton.Yes:
            self._app.library.delete(summary.id)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """F2 renames, Delete deletes, the menu key and a click at a row's end open the menu."""
        if watched is self._list.viewport() and event.type() in _CLICKS:
            click: QMouseEvent = event  # type: ignore[assignment]  # by its type
            at = click.position().toPoint()
            index = self._list.indexAt(at)
            end = at.x() > self._list.visualRect(index).right() - MORE
            if click.button() is Qt.MouseButton.LeftButton and end and self._rows.summary(index) is not None:
                if event.type() is QEvent.Type.MouseButtonRelease:
                    self._menu(at)
                return True
        if watched is self._list and event.type() is QEvent.Type.KeyPress:
            summary = self._rows.summary(self._list.currentIndex())
            key: QKeyEvent = event  # type: ignore[assignment]  # by its type
            if summary is not None and key.matches(QKeySequence.StandardKey.Delete):
                self._delete(summary)
                return True
            if summary is not None and key.key() == Qt.Key.Key_F2:
                self._rename(summary)
                return True
        return super().eventFilter(watched, event)
