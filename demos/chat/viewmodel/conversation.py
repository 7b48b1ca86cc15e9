"""One conversation: asking, stopping, asking again, and the branches that come of it."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from demos.chat.emitter import Emitter
from demos.chat.history.records import Conversation, Summary
from demos.chat.viewmodel.messages import MessageModel
from demos.chat.viewmodel.tree import MessageTree
from device_sdk import Token
from model_runtime.core import Cancellation

if TYPE_CHECKING:
    from collections.abc import Callable

    from demos.chat.background import Job
    from demos.chat.history.records import Attachment
    from demos.chat.history.store import Store
    from demos.chat.viewmodel.services import Services, Stamped
    from model_runtime.core import Message as ChatMessage

_TITLE_LENGTH = 60


class ConversationModel:
    """What one window shows in its middle. An answer goes on while another conversation is shown."""

    def __init__(self, services: Services, stored: Conversation | None = None, now: Callable[[], float] = time.time):
        #: The shown branch is another one: draw everything anew.
        self.turned: Emitter[None] = Emitter()
        self.added: Emitter[MessageModel] = Emitter()
        self.changed: Emitter[MessageModel] = Emitter()
        #: An answer began or ended.
        self.busy_changed: Emitter[bool] = Emitter()
        self.pending_changed: Emitter[None] = Emitter()
        self.id = stored.summary.id if stored else uuid.uuid4().hex
        self.title = stored.summary.title if stored else ""
        self.draft = stored.draft if stored else ""
        #: Documents that go with the next question.
        self.pending: list[Attachment] = list(stored.pending) if stored else []
        self._stored = stored is not None
        self._created_at = stored.summary.created_at if stored else now()
        self._services = services
        self._now = now
        self._job: Job | None = None
        self._cancellation = Cancellation()
        self._answering: MessageModel | None = None
        self._tokens = 0
        messages = [MessageModel.of(message) for message in stored.messages] if stored else []
        self.tree = MessageTree(messages, stored.leaf if stored else None)

    @property
    def empty(self) -> bool:
        return not len(self.tree)

    @property
    def pristine(self) -> bool:
        """Nothing was asked, nothing written, nothing attached."""
        return self.empty and not self.draft and not self.pending

    @property
    def busy(self) -> bool:
        return self._answering is not None

    # --- asking ----------------------------------------------------------------------------------------------------

    def send(self, text: str) -> bool:
        """Ask `text` about the pending documents. False where there is nothing to ask, or an answer is under way."""
        text = text.strip()
        if self.busy or not (text or self.pending):
            return False
        question = self._ask_after(self.tree.leaf, text, tuple(self.pending))
        self.set_draft("")
        if self.pending:
            self.pending.clear()
            self._pend()
        self._answer(question)
        return True

    def edit(self, id_: str, text: str) -> bool:
        """Ask it in other words, about the same documents: a branch beside the first."""
        asked = self.tree[id_]
        if self.busy or not (text.strip() or asked.attachments):
            return False
        question = self._ask_after(asked.parent, text.strip(), asked.attachments)
        self.turned.emit(None)
        self._answer(question)
        return True

    def regenerate(self, id_: str | None = None) -> bool:
        """Answer again: the last question, or the one that answer `id_` is to."""
        if self.busy or self.empty:
            return False
        message = self.tree[id_] if id_ else self.tree.path()[-1]
        question = message if message.role == "user" else self.tree[message.parent or ""]
        self.tree.leaf = question.id
        self.turned.emit(None)
        self._answer(question)
        return True

    def stop(self) -> None:
        """What was said stays; its report follows. Harmless where nothing is under way."""
        answer, job = self._answering, self._job
        if answer is None or job is None:
            return
        if answer.answer.waiting:
            job.cancel()  # not even begun: nobody would say more
        else:
            self._cancellation.cancel()
        answer.answer.stop()
        self._ended(answer)

    def turn(self, id_: str, step: int) -> None:
        """Show another version of a message."""
        if not self.busy and self.tree.turn(id_, step):
            leaf, conversation = self.tree.leaf, self.id
            self._write(lambda store: store.show(conversation, leaf), listed=False)
            self.turned.emit(None)

    # --- what is not sent yet --------------------------------------------------------------------------------------

    def set_draft(self, text: str) -> None:
        if text == self.draft:
            return
        self.draft = text
        conversation = self.id
        self._keep_unsent(lambda store: store.draft(conversation, text))

    def attach(self, attachment: Attachment) -> None:
        self.pending.append(attachment)
        self._pend()

    def detach(self, index: int) -> None:
        del self.pending[index]
        self._pend()

    def _pend(self) -> None:
        conversation, pending = self.id, tuple(self.pending)
        self._keep_unsent(lambda store: store.pend(conversation, pending))
        self.pending_changed.emit(None)

    def _keep_unsent(self, work: Callable[[Store], None]) -> None:
        conversation = self.id
        if self.pristine:
            self._stored = False
            self._write(lambda store: store.discard(conversation))
            return
        if not self._stored:
            self._stored = True
            self._write(lambda store: store.create(conversation, ""))
        self._write(work, listed=False)

    def document(self, id_: str, index: int) -> tuple[Attachment, list[tuple[int, int]] | None]:
        """A question's document, and what of it the device read for the answer that is shown, where that was a part."""
        question = self.tree[id_]
        answer = next((message for message in self.tree.path() if message.parent == id_), None)
        report = answer.report if answer is not None else None
        return question.attachments[index], None if report is None else question.read_of(index, report)

    # --- as a whole ------------------------------------------------------------------------------------------------

    def rename(self, title: str) -> None:
        self.title = title

    def record(self, leaf: str | None = None) -> Conversation:
        """Everything, with the branch that ends in `leaf`, or the shown one."""
        summary = Summary(self.id, self.title, False, self._created_at, self._now())
        messages = tuple(message.record() for message in self.tree.messages())
        return Conversation(summary, messages, leaf or self.tree.leaf, self.draft, tuple(self.pending))

    def prompt(self, to: str) -> list[ChatMessage]:
        """What the models read to answer message `to`."""
        system = self._services.settings.system_prompt.strip()
        messages: list[ChatMessage] = [{"role": "system", "content": system}] if system else []
        for message in self.tree.path(to):
            content = message.prompt()
            # A failed answer without a word is no turn.
            if content:
                messages.append({"role": message.role, "content": content})
        return messages

    # --- inside ----------------------------------------------------------------------------------------------------

    def _ask_after(self, parent: str | None, text: str, attachments: tuple[Attachment, ...]) -> MessageModel:
        question = MessageModel(uuid.uuid4().hex, parent, "user", self._now(), text, attachments)
        question.answer.state, question.answer.waiting = "whole", False
        if not self.title:
            self._stored = True
            conversation, title = self.id, title_of(text, attachments)
            self.title = title
            self._write(lambda store: store.create(conversation, title))
        self._add(question)
        return question

    def _answer(self, question: MessageModel) -> None:
        answer = MessageModel(uuid.uuid4().hex, question.id, "assistant", self._now())
        self._answering, self._tokens, self._cancellation = answer, 0, Cancellation()
        self._add(answer)
        events = self._services.ask(self.prompt(question.id), self._services.settings.mode, self._cancellation)
        self._job = self._services.background.listen(
            events, lambda stamped: self._take(answer, stamped), lambda error: self._listened(answer, error)
        )
        self.busy_changed.emit(True)

    def _add(self, message: MessageModel) -> None:
        self.tree.add(message)
        conversation, record = self.id, message.record()
        self._write(lambda store: store.add(conversation, record))
        self.added.emit(message)

    def _take(self, answer: MessageModel, stamped: Stamped) -> None:
        answer.answer.take(stamped)
        if isinstance(stamped.event, Token) and stamped.event.text and self._answering is answer:
            position, source, text = self._tokens, stamped.event.source, stamped.event.text
            self._tokens += 1
            self._write(lambda store: store.append(answer.id, position, source, text), listed=False)
        self.changed.emit(answer)

    def _listened(self, answer: MessageModel, error: Exception | None) -> None:
        if error is not None:
            answer.answer.fail(error)
        answer.answer.stop()
        self._ended(answer)

    def _ended(self, answer: MessageModel) -> None:
        """Twice where it was stopped: at once, and when its report is there, perhaps beside another answer."""
        record = answer.record()
        self._write(lambda store: store.finish(record))
        self._services.sides.look()
        self.changed.emit(answer)
        if self._answering is answer:
            self._answering = self._job = None
            self.busy_changed.emit(False)

    def _write(self, work: Callable[[Store], None], *, listed: bool = True) -> None:
        self._services.write(work, listed=listed, of=(self.id, self._whole))

    def _whole(self) -> Conversation | None:
        """None while an answer is under way, which is kept token by token."""
        return None if self.busy else self.record()


def title_of(text: str, attachments: tuple[Attachment, ...] = ()) -> str:
    """The first words of the first question."""
    line = " ".join(text.split()) or (attachments[0].name if attachments else "New chat")
    if len(line) <= _TITLE_LENGTH:
        return line
    return line[:_TITLE_LENGTH].rsplit(" ", 1)[0] + " …"
