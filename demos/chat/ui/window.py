"""The window: conversations at the left, the conversation in the middle, the composer below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtGui import QGuiApplication, QKeySequence, QShortcut
from PySide6.QtWidgets import QApplication, QFileDialog, QHBoxLayout, QMainWindow, QStackedWidget, QVBoxLayout, QWidget

from demos.chat.ui.centred import Centred
from demos.chat.ui.comparison_page import ComparisonPage
from demos.chat.ui.composer import Composer
from demos.chat.ui.document_dialog import DocumentDialog
from demos.chat.ui.empty import Empty
from demos.chat.ui.header import Header
from demos.chat.ui.settings_dialog import SettingsDialog
from demos.chat.ui.sidebar import Sidebar
from demos.chat.ui.theme import palette_of
from demos.chat.ui.toast import Banner, Toast
from demos.chat.ui.transcript import Transcript
from demos.chat.viewmodel.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDragLeaveEvent, QDropEvent, QResizeEvent

    from demos.chat.history.records import Attachment
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.app import AppModel
    from demos.chat.viewmodel.conversation import ConversationModel

_SMALLEST = (640, 420)
_FIRST = (1180, 780)
#: Narrower than this, the conversations make room.
_SIDEBAR_FROM = 820


class Window(QMainWindow):
    def __init__(self, look: Look, app: AppModel, title: str) -> None:
        super().__init__()
        self.setWindowTitle(title)
        self.setMinimumSize(*_SMALLEST)
        self.resize(QSize(*(look.settings.window or _FIRST)).boundedTo(self.screen().availableSize()))
        self._look = look
        self._app = app
        self.setAcceptDrops(True)
        self._forget: Callable[[], None] = lambda: None
        self.sidebar = Sidebar(look, app, self._export, self._import)
        self.header = Header(look, app, self.toggle_sidebar, self.open_settings)
        self.banner = Banner(look, self.open_settings)
        self.transcript = Transcript(look, self)
        self.empty = Empty(look, app.ask_example)
        self.composer = Composer(look, app, self._show_attachment)
        self.composer.field.paged.connect(self.transcript.page)
        self.middle = QStackedWidget()
        self.middle.addWidget(self.empty)
        self.middle.addWidget(self.transcript)
        self.pages = QStackedWidget()
        self.pages.addWidget(self._chat_page())
        self.comparison: ComparisonPage | None = None
        self._toast = Toast(self)
        right = QVBoxLayout()
        right.setContentsMargins(0, 0, 0, 0)
        right.setSpacing(0)
        right.addWidget(self.header)
        right.addWidget(self.banner)
        right.addWidget(self.pages, 1)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.sidebar)
        row.addLayout(right, 1)
        centre = QWidget()
        centre.setObjectName("page")
        centre.setLayout(row)
        self.setCentralWidget(centre)
        self._add_shortcuts()
        app.shown.subscribe(self._show)
        app.settings_changed.subscribe(self._settings_changed)
        app.examples_changed.subscribe(self.empty.show_examples)
        app.trouble.subscribe(self.banner.show_problem)
        app.said.subscribe(self.said)
        QGuiApplication.styleHints().colorSchemeChanged.connect(lambda _: look.change(look.settings))
        # One picture of what was, one of what is, and none of what is in between.
        forget = look.changing.subscribe(lambda changing: self.setUpdatesEnabled(not changing))
        self.destroyed.connect(lambda *_: forget())
        look.follow(self, self._set_up_application)
        for part in (self.sidebar, self.header, self.banner, self.empty, self.composer, self._toast):
            look.dress(part)
        self._show(app.current)

    # --- what can be done with a message ---------------------------------------------------------------------------

    def edit(self, id_: str, text: str) -> None:
        self._app.current.edit(id_, text)

    def regenerate(self, id_: str) -> None:
        self._app.current.regenerate(id_)

    def branch(self, id_: str) -> None:
        self._app.branch(id_)

    def compare(self, id_: str) -> None:
        comparison = self._app.compare(id_)
        if comparison is None:
            return
        self.close_comparison()
        self.comparison = ComparisonPage(self._look, comparison, self.close_comparison)
        self.pages.addWidget(self.comparison)
        self.pages.setCurrentWidget(self.comparison)
        self.comparison.setFocus()
        comparison.start()

    def turn(self, id_: str, step: int) -> None:
        self._app.current.turn(id_, step)

    def show_document(self, id_: str, index: int) -> None:
        self._show_attachment(*self._app.current.document(id_, index))

    def open_settings(self) -> None:
        dialog = SettingsDialog(self, self._look, self._app)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def said(self, text: str) -> None:
        self._toast.say(text, self._below.height() + 8)

    # --- as a whole ------------------------------------------------------------------------------------------------

    def toggle_sidebar(self) -> None:
        self._app.change(sidebar=not self.sidebar.isVisible())
        self._arrange()

    def close_comparison(self) -> None:
        if self.comparison is not None:
            self.comparison.stop()
            self.pages.removeWidget(self.comparison)
            self.comparison.deleteLater()
            self.comparison = None
            self.composer.field.setFocus()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange()

    # A document may be dropped anywhere.

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        self.composer.dragEnterEvent(event)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self.composer.dragLeaveEvent(event)

    def dropEvent(self, event: QDropEvent) -> None:
        self.composer.dropEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        if not self.isMaximized() and not self.isFullScreen():
            self._app.remember_window(self.width(), self.height())
        super().closeEvent(event)

    def _chat_page(self) -> QWidget:
        page = QWidget()
        page.setObjectName("page")
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.middle, 1)
        self._below = Centred(self.composer)
        layout.addWidget(self._below)
        return page

    def _arrange(self) -> None:
        self.sidebar.setVisible(self._app.settings.sidebar and self.width() >= _SIDEBAR_FROM)

    def _show(self, conversation: ConversationModel) -> None:
        self.close_comparison()
        self._forget()
        self._forget = conversation.added.subscribe(lambda _: self._show_middle())
        self.transcript.show_conversation(conversation)
        self.composer.show_conversation(conversation)
        self._show_middle()
        self.composer.field.setFocus()

    def _show_middle(self) -> None:
        empty = self._app.current.empty
        self.middle.setCurrentWidget(self.empty if empty else self.transcript)
        self.header.refresh()

    def _show_attachment(self, attachment: Attachment, read: list[tuple[int, int]] | None = None) -> None:
        dialog = DocumentDialog(self, self._look, attachment, read)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _settings_changed(self, settings: Settings) -> None:
        self._look.change(settings)
        self._arrange()

    def _set_up_application(self) -> None:
        """So that dialogs of the system follow, too."""
        application = QApplication.instance()
        if not isinstance(application, QApplication):
            return
        font = application.font()
        if font.pointSize() != self._look.settings.font_size:
            font.setPointSize(self._look.settings.font_size)
            application.setFont(font)
        palette = palette_of(self._look.colours)
        if palette != application.palette():
            application.setPalette(palette)

    # --- files -----------------------------------------------------------------------------------------------------

    def _export(self, id_: str | None) -> None:
        """One, or all."""
        if id_ is None:
            name, _ = QFileDialog.getSaveFileName(self, "Export all", "conversations.json", "JSON (*.json)")
        else:
            name, _ = QFileDialog.getSaveFileName(self, "Export", "conversation.md", "Markdown (*.md);;JSON (*.json)")
        if name:
            self._app.export(id_, Path(name))

    def _import(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Import", "", "Exported conversations (*.json)")
        if name:
            self._app.import_(Path(name))

    # --- keys ------------------------------------------------------------------------------------------------------

    def _add_shortcuts(self) -> None:
        app = self._app
        keys: dict[str, Callable[[], object]] = {
            "Esc": self._escape,
            "Ctrl+R": self._again,
            "Ctrl+N": app.new_chat,
            "Ctrl+B": self.toggle_sidebar,
            "Ctrl+K": self._search,
            "Ctrl+O": self.composer.choose_files,
            "Ctrl+U": app.sides.toggle_plug,
            "Ctrl+E": self._edit_last,
            "Ctrl+L": self.composer.field.setFocus,
            "Ctrl+,": self.open_settings,
            "Ctrl++": lambda: self._resize_text(+1),
            "Ctrl+=": lambda: self._resize_text(+1),
            "Ctrl+-": lambda: self._resize_text(-1),
            "Ctrl+0": lambda: self._app.change(font_size=Settings().font_size),
            "Ctrl+Shift+C": self._copy_last,
        }
        for key, action in keys.items():
            QShortcut(QKeySequence(key), self, action)

    def _escape(self) -> None:
        if self.comparison is not None:
            self.close_comparison()
        else:
            self._app.current.stop()

    def _again(self) -> None:
        self._app.current.regenerate()

    def _copy_last(self) -> None:
        answers = [message for message in self._app.current.tree.path() if message.role == "assistant"]
        if answers:
            QGuiApplication.clipboard().setText(answers[-1].text)
            self.said("Answer copied")

    def _search(self) -> None:
        if not self.sidebar.isVisible():
            self.toggle_sidebar()
        self.sidebar.search.setFocus()
        self.sidebar.search.selectAll()

    def _edit_last(self) -> None:
        view = self.transcript.last_question()
        if view is not None and not self._app.current.busy:
            view.edit()
            QTimer.singleShot(0, self, self.transcript.to_end)

    def _resize_text(self, step: int) -> None:
        self._app.change(font_size=max(8, min(20, self._app.settings.font_size + step)))
