"""An answer: its text, what was said beside it, one line of figures, and what happened for whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QAccessible, QAccessibleAnnouncementEvent, QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from demos.chat.ui.blocks import Blocks
from demos.chat.ui.details import Details
from demos.chat.ui.look import label, tool
from demos.chat.ui.notes import NoticeLine, ProblemCard
from demos.chat.ui.versions import Versions
from demos.chat.ui.waiting import Waiting
from demos.chat.viewmodel import figures
from demos.chat.viewmodel.wording import state_line

if TYPE_CHECKING:
    from demos.chat.ui.actions import Actions
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.messages import MessageModel


_DETAILS_AFTER_MS = 70


class AnswerView(QWidget):
    def __init__(
        self, look: Look, message: MessageModel, place: tuple[int, int], actions: Actions, *, opened: bool
    ) -> None:
        """`opened`: with its timeline."""
        super().__init__()
        self.setObjectName("answer")
        self.message = message
        self._look = look
        self._actions = actions
        self._notices = 0
        self._asked_for = False
        self._streaming = False
        self._problem: ProblemCard | None = None
        self._details: Details | None = None
        self.setAccessibleName("Answer")
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 4, 0, 12)
        self._layout.setSpacing(8)
        self._waiting = Waiting(look)
        self._blocks = Blocks(look, "Answer")
        self._beside = QVBoxLayout()
        self._beside.setSpacing(6)
        self._layout.addWidget(self._waiting)
        self._layout.addWidget(self._blocks)
        self._layout.addLayout(self._beside)
        self._layout.addWidget(self._foot(place))
        if opened:
            self._open(True)
        # In a turn of its own, and not as often as words come: it takes as long to draw as all of the text.
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_DETAILS_AFTER_MS)
        self._later.timeout.connect(self._refresh_details)
        look.dress(self)
        look.follow(self, self.refresh)

    def refresh(self) -> None:
        """Draw what the message is now."""
        answer = self.message.answer
        streaming = answer.state == "streaming"
        self._waiting.show_waiting(streaming and not answer.text, "Loading models" if answer.waiting else "")
        self._blocks.show_text(answer.text, answer.runs)
        self._blocks.setVisible(bool(answer.text))
        for text in answer.notices[self._notices :]:
            self._beside.addWidget(NoticeLine(self._look, text))
        self._notices = len(answer.notices)
        if answer.problem is not None and self._problem is None:
            self._problem = ProblemCard(
                self._look, answer.problem, lambda: self._actions.regenerate(self.message.id),
                self._actions.open_settings,
            )  # fmt: skip
            self._beside.addWidget(self._problem)
        self._line.setText(self._summary())
        self._buttons.setVisible(not streaming)
        self._toggle.setVisible(bool(answer.trace.releases) or answer.report is not None)
        if not self._later.isActive():
            self._later.start()
        if self._streaming and not streaming:
            # For screen readers, which do not watch a text that grows.
            QAccessible.updateAccessibility(QAccessibleAnnouncementEvent(self, f"Answer: {answer.text}"))
        self._streaming = streaming

    def _refresh_details(self) -> None:
        answer = self.message.answer
        if self._details is None:
            return
        self._details.setVisible(
            self._toggle.isChecked() and (answer.state == "streaming" or bool(answer.trace.releases))
        )
        if self._details.isVisibleTo(self):
            self._details.show_answer(answer, self._look.settings.price_per_million)

    def _foot(self, place: tuple[int, int]) -> QWidget:
        foot = QWidget()
        row = QHBoxLayout(foot)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        look, actions, id_ = self._look, self._actions, self.message.id
        self._buttons = QWidget()
        buttons = QHBoxLayout(self._buttons)
        buttons.setContentsMargins(0, 0, 6, 0)
        buttons.setSpacing(1)
        buttons.addWidget(Versions(self, look, place, lambda step: actions.turn(id_, step)))
        buttons.addWidget(tool(look, "copy", "Copy answer", self._copy))
        buttons.addWidget(tool(look, "again", "Answer again", lambda: actions.regenerate(id_), "Ctrl+R"))
        buttons.addWidget(tool(look, "branch", "Branch into a new chat", lambda: actions.branch(id_)))
        buttons.addWidget(tool(look, "columns", "Compare: on device, in cloud, split", lambda: actions.compare(id_)))
        row.addWidget(self._buttons)
        self._toggle = tool(look, "chart", "What happened", self._toggled)
        self._toggle.setCheckable(True)
        row.addWidget(self._toggle)
        self._line = label("", "muted", wrap=True)
        self._line.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row.addSpacing(6)
        row.addWidget(self._line, 1)
        return foot

    def _summary(self) -> str:
        answer = self.message.answer
        if answer.report is not None:
            line = figures.summary(answer.report)
        else:
            line = figures.live_summary(answer.trace) if answer.trace.releases else ""
        said = state_line(answer.state, answer.report)
        return "  ·  ".join(part for part in (said, line) if part)

    def make_room(self) -> None:
        """A newer answer is there: its timeline is the one to look at, unless this one was asked for."""
        if not self._asked_for:
            self._open(False)

    def _toggled(self) -> None:
        self._asked_for = True
        self._open(self._toggle.isChecked())
        self._refresh_details()

    def _open(self, opened: bool) -> None:
        self._toggle.setChecked(opened)
        if opened and self._details is None:
            self._details = Details(self._look)
            self._layout.addWidget(self._details)
        if self._details is not None:
            self._details.setVisible(opened)

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.message.answer.text)
        self._actions.said("Answer copied")
