"""The conversation: newest below, in view as long as the reader is at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QPushButton, QScrollArea, QVBoxLayout, QWidget

from demos.chat.ui.answer_view import AnswerView
from demos.chat.ui.look import tool
from demos.chat.ui.question_view import QuestionView

if TYPE_CHECKING:
    from collections.abc import Callable

    from PySide6.QtGui import QResizeEvent

    from demos.chat.ui.actions import Actions
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.conversation import ConversationModel
    from demos.chat.viewmodel.messages import MessageModel

#: The text's widest line: longer ones are hard to read.
COLUMN = 760
MARGIN = 24
#: Tokens come up to a hundred times a second; the eye needs 30 pictures.
_REDRAW_MS = 33
#: Messages that are drawn at once; earlier ones on request.
_PAGE = 16
#: As close to the end as counts as being there.
_NEAR = 40
_JUMP = 34


class Transcript(QScrollArea):
    def __init__(self, look: Look, actions: Actions) -> None:
        super().__init__()
        self.setObjectName("transcript")
        self.setAccessibleName("Conversation")
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._look = look
        self._actions = actions
        self._conversation: ConversationModel | None = None
        self._forget: list[Callable[[], None]] = []
        self._views: dict[str, QuestionView | AnswerView] = {}
        #: Of the branch, messages from this one on are there; more are put above until this many are left out.
        self._from = self._until = 0
        self._stale: set[str] = set()
        self._at_end = True
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REDRAW_MS)
        self._timer.timeout.connect(self._redraw)
        self._building = QTimer(self)
        self._building.setSingleShot(True)
        self._building.setInterval(0)
        self._building.timeout.connect(self._put_earlier)
        self._page = QWidget()
        self._page.setObjectName("page")
        self._column = QVBoxLayout(self._page)
        self._column.setSpacing(2)
        self._earlier = QPushButton("Show earlier messages")
        self._earlier.clicked.connect(self._show_earlier)
        self._column.addWidget(self._earlier, 0, Qt.AlignmentFlag.AlignHCenter)
        self._column.addStretch()
        self.setWidget(self._page)
        self._down = tool(look, "down", "To the newest message", self.to_end)
        self._down.setParent(self)
        self._down.setProperty("role", "jump")
        self._down.setFixedSize(_JUMP, _JUMP)
        self._down.hide()
        bar = self.verticalScrollBar()
        # Not the whole: each message is dressed by itself.
        for part in (self._earlier, self._down, bar):
            look.dress(part)
        bar.rangeChanged.connect(self._range_changed)
        bar.valueChanged.connect(self._scrolled)

    def show_conversation(self, conversation: ConversationModel) -> None:
        for forget in self._forget:
            forget()
        self._conversation = conversation
        self._forget = [
            conversation.turned.subscribe(lambda _: self._rebuild()),
            conversation.added.subscribe(self._add),
            conversation.changed.subscribe(self._changed),
        ]
        self._rebuild()

    def last_question(self) -> QuestionView | None:
        views = [view for view in self._views.values() if isinstance(view, QuestionView)]
        return views[-1] if views else None

    def to_end(self) -> None:
        self._at_end = True
        self._range_changed()

    def page(self, by: int) -> None:
        """A screenful up (-1) or down (1)."""
        bar = self.verticalScrollBar()
        bar.setValue(bar.value() + by * (bar.pageStep() - 2 * _NEAR))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()
        self._down.move((self.width() - _JUMP) // 2, self.height() - _JUMP - 10)

    def _fit(self) -> None:
        width = self.viewport().width()
        margin = max(MARGIN, (width - COLUMN) // 2)
        self._column.setContentsMargins(margin, 18, margin, 18)
        for view in self._views.values():
            view.setFixedWidth(max(120, width - 2 * margin))
            if isinstance(view, QuestionView):
                view.fit(max(120, width - 2 * margin))

    def _rebuild(self) -> None:
        for view in self._views.values():
            self._column.removeWidget(view)
            view.hide()
            view.deleteLater()
        self._views.clear()
        self._stale.clear()
        path = self._path()
        self._from = len(path)
        self._until = max(0, len(path) - _PAGE)
        self.to_end()
        self._put_earlier()

    def _show_earlier(self) -> None:
        """Above what is in view, which stays where it is."""
        self._until = max(0, self._from - _PAGE)
        self._at_end = False
        self._put_earlier()

    def _put_earlier(self) -> None:
        """One message a turn of the event loop, the newest first: a page of them takes longer than anyone should wait
        for a key."""
        path, bar = self._path(), self.verticalScrollBar()
        if self._from > self._until and self._from <= len(path):
            below = bar.maximum() - bar.value()
            self._from -= 1
            self._put(path[self._from], 1, newest=self._from == len(path) - 1)
            self._fit()
            if not self._at_end:
                QTimer.singleShot(0, self, lambda: bar.setValue(bar.maximum() - below))
            self._building.start()
        self._earlier.setVisible(self._from > 0 and self._from <= self._until)

    def _path(self) -> list[MessageModel]:
        return self._conversation.tree.path() if self._conversation else []

    def _put(self, message: MessageModel, at: int, *, newest: bool) -> None:
        assert self._conversation is not None  # noqa: S101 - there is no message without one
        place = self._conversation.tree.place(message.id)
        view: QuestionView | AnswerView
        if message.role == "user":
            view = QuestionView(self._look, message, place, self._actions)
        else:
            opened = newest and self._look.settings.timelines
            view = AnswerView(self._look, message, place, self._actions, opened=opened)
        self._views[message.id] = view
        self._column.insertWidget(at, view)

    def _add(self, message: MessageModel) -> None:
        for view in self._views.values():
            if isinstance(view, AnswerView):
                view.make_room()
        self._put(message, self._column.count() - 1, newest=True)
        self._fit()
        self.to_end()

    def _changed(self, message: MessageModel) -> None:
        self._stale.add(message.id)
        if not self._timer.isActive():
            self._timer.start()

    def _redraw(self) -> None:
        stale, self._stale = self._stale, set()
        for id_ in stale:
            view = self._views.get(id_)
            if isinstance(view, AnswerView):
                view.refresh()

    def _range_changed(self, *_: int) -> None:
        bar = self.verticalScrollBar()
        if self._at_end:
            bar.setValue(bar.maximum())
        self._scrolled(bar.value())

    def _scrolled(self, value: int) -> None:
        self._at_end = value >= self.verticalScrollBar().maximum() - _NEAR
        self._down.setVisible(not self._at_end)
        self._down.raise_()
