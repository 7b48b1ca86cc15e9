"""Where a question is written: documents above, the mode and the send button below."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QFileDialog, QFrame, QHBoxLayout, QMenu, QPlainTextEdit, QToolButton, QVBoxLayout

from demos.chat.ui.chip import Chip
from demos.chat.ui.flow import Flow
from demos.chat.ui.icons import icon
from demos.chat.ui.look import label, restyle, tool
from demos.chat.viewmodel.figures import MODE_HINTS, MODE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from PySide6.QtCore import QMimeData
    from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent, QFocusEvent, QKeyEvent

    from demos.chat.history.records import Attachment
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.app import AppModel
    from demos.chat.viewmodel.conversation import ConversationModel

_TALLEST_LINES = 9
_FILES = "Documents (*.txt *.md *.markdown *.pdf *.log *.csv *.json *.py);;All files (*)"


class Composer(QFrame):
    def __init__(self, look: Look, app: AppModel, show_document: Callable[[Attachment], None]) -> None:
        super().__init__()
        self.setObjectName("composer")
        self.setAcceptDrops(True)
        self._look = look
        self._app = app
        self._show_document = show_document
        self._conversation: ConversationModel = app.current
        self._forget: list[Callable[[], None]] = []
        self.field = _Field()
        self.field.sent.connect(self._send)
        self.field.focused.connect(self._focused)
        self.field.textChanged.connect(self._typed)
        self._chips = Flow()
        self._mode = self._mode_button()
        self._button = QToolButton()
        self._button.setProperty("role", "send")
        self._button.setFixedSize(34, 34)
        self._button.setIconSize(QSize(18, 18))
        self._button.clicked.connect(self._send_or_stop)
        self._hint = label("", "muted")
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(tool(look, "clip", "Attach documents", self.choose_files, "Ctrl+O"))
        row.addWidget(self._mode)
        row.addStretch()
        row.addWidget(self._hint)
        row.addSpacing(6)
        row.addWidget(self._button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 10, 9, 8)
        layout.setSpacing(6)
        layout.addWidget(self._chips)
        layout.addWidget(self.field)
        layout.addLayout(row)
        look.follow(self, self._draw)

    def show_conversation(self, conversation: ConversationModel) -> None:
        for forget in self._forget:
            forget()
        self._conversation = conversation
        self._forget = [
            conversation.pending_changed.subscribe(lambda _: self._draw_chips()),
            conversation.busy_changed.subscribe(lambda _: self._draw()),
        ]
        self.field.setPlainText(conversation.draft)
        self.field.moveCursor(self.field.textCursor().MoveOperation.End)
        self._draw_chips()
        self._draw()

    def choose_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Attach documents", "", _FILES)
        self._app.attach([Path(name) for name in names])

    # --- sending -------------------------------------------------------------------------------------------------

    def _send_or_stop(self) -> None:
        if self._conversation.busy:
            self._conversation.stop()
        else:
            self._send()

    def _send(self) -> None:
        if self._conversation.send(self.field.toPlainText()):
            self.field.clear()

    def _typed(self) -> None:
        self._conversation.set_draft(self.field.toPlainText())
        self._draw_button()

    # --- drawing -------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        mode = self._app.settings.mode
        self._mode.setText(f"{MODE_NAMES[mode]}  ▾")
        self._mode.setToolTip(MODE_HINTS[mode])
        self.field.setPlaceholderText("Ask about a document, or anything")
        self.field.fit()
        self._draw_button()

    def _draw_button(self) -> None:
        colours, busy = self._look.colours, self._conversation.busy
        ready = busy or bool(self.field.toPlainText().strip() or self._conversation.pending)
        name = "Stop" if busy else "Send"
        self._button.setAccessibleName(name)
        self._button.setToolTip(f"{name} ({'Esc' if busy else 'Enter'})")
        self._button.setEnabled(ready)
        self._button.setIcon(icon("stop" if busy else "send", colours.on_accent if ready else colours.muted))
        self._hint.setText("Esc to stop" if busy else "")

    def _draw_chips(self) -> None:
        self._chips.clear()
        for index, attachment in enumerate(self._conversation.pending):
            show = partial(self._show_document, attachment)
            self._chips.add(Chip(self._look, attachment, show, partial(self._conversation.detach, index)))
        self._chips.setVisible(bool(self._conversation.pending))
        self._draw_button()

    def _focused(self, focused: bool) -> None:
        self.setProperty("focused", "true" if focused else "false")
        restyle(self)

    def _mode_button(self) -> QToolButton:
        button = QToolButton()
        button.setProperty("role", "pill")
        button.setAccessibleName("Who answers")
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(button)
        group = QActionGroup(menu)
        for mode, name in MODE_NAMES.items():
            action = QAction(f"{name}   –   {MODE_HINTS[mode]}", menu, checkable=True)
            action.setActionGroup(group)
            action.setChecked(mode is self._app.settings.mode)
            action.triggered.connect(lambda _=False, m=mode: self._app.change(mode=m))
            menu.addAction(action)
        menu.aboutToShow.connect(
            lambda: group.actions()[list(MODE_NAMES).index(self._app.settings.mode)].setChecked(True)
        )
        button.setMenu(menu)
        return button

    # --- documents dropped ---------------------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if event.mimeData().hasUrls() or event.mimeData().hasText():
            event.acceptProposedAction()
            self._dropping(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self._dropping(False)

    def dropEvent(self, event: QDropEvent) -> None:
        self._dropping(False)
        self.take(event.mimeData())
        event.acceptProposedAction()

    def take(self, data: QMimeData) -> None:
        """Files become documents; text goes where it belongs by its length."""
        files = [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()]
        if files:
            self._app.attach(files)
        elif data.hasText() and not self._app.paste(data.text()):
            self.field.insertPlainText(data.text())

    def _dropping(self, dropping: bool) -> None:
        self.setProperty("dropping", "true" if dropping else "false")
        restyle(self)


class _Field(QPlainTextEdit):
    """Enter sends, Shift+Enter begins a line; grows up to nine lines."""

    sent = Signal()
    focused = Signal(bool)
    #: The conversation is to be scrolled by a screenful: there is nothing to scroll here.
    paged = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Your question")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setTabChangesFocus(True)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.document().setDocumentMargin(2)
        self.setAcceptDrops(False)
        self.document().documentLayout().documentSizeChanged.connect(lambda _: self.fit())
        self.fit()

    def fit(self) -> None:
        line = self.fontMetrics().lineSpacing()
        lines = max(1, min(_TALLEST_LINES, int(self.document().size().height())))
        self.setFixedHeight(line * lines + 8)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self.fit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and not event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.sent.emit()
        elif event.key() in (Qt.Key.Key_PageUp, Qt.Key.Key_PageDown):
            self.paged.emit(-1 if event.key() == Qt.Key.Key_PageUp else 1)
        else:
            super().keyPressEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.focused.emit(True)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.focused.emit(False)

    def canInsertFromMimeData(self, source: QMimeData) -> bool:
        return source.hasUrls() or super().canInsertFromMimeData(source)

    def insertFromMimeData(self, source: QMimeData) -> None:
        parent = self.parentWidget()
        if isinstance(parent, Composer) and (source.hasUrls() or source.hasText()):
            parent.take(source)
        else:
            super().insertFromMimeData(source)
