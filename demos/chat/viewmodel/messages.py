"""One message as it is on the screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demos.chat.history.records import Message
from demos.chat.viewmodel.answer import AnswerModel
from demos.chat.viewmodel.problems import Problem
from demos.chat.viewmodel.trace import Trace

if TYPE_CHECKING:
    from demos.chat.history.records import Attachment, Role, Run, State
    from device_sdk import Report


@dataclass(slots=True)
class MessageModel:
    """A question, or an answer with how it came about. `answer` is what an answer is made of."""

    id: str
    parent: str | None
    role: Role
    created_at: float
    question: str = ""
    attachments: tuple[Attachment, ...] = ()
    answer: AnswerModel = field(default_factory=AnswerModel)

    @classmethod
    def of(cls, message: Message) -> MessageModel:
        if message.role == "user":
            return cls(
                message.id, message.parent, "user", message.created_at, message.text, message.attachments,
                AnswerModel(state="whole", waiting=False),
            )  # fmt: skip
        details, report = message.details, message.details.report
        answer = AnswerModel(
            message.text,
            list(details.runs),
            message.state,
            waiting=False,
            notices=list(details.notices),
            problem=None if details.problem is None else _problem(details.problem),
            report=report,
            trace=Trace() if report is None else Trace.of(report),
        )
        return cls(message.id, message.parent, "assistant", message.created_at, answer=answer)

    def record(self) -> Message:
        if self.role == "user":
            return Message(
                self.id, self.parent, "user", self.question, "whole", self.attachments, created_at=self.created_at
            )
        answer = self.answer
        return Message(
            self.id, self.parent, "assistant", answer.text, answer.state, (), answer.details(), self.created_at
        )

    @property
    def text(self) -> str:
        return self.question if self.role == "user" else self.answer.text

    @property
    def state(self) -> State:
        return self.answer.state

    @property
    def runs(self) -> list[Run]:
        return self.answer.runs

    @property
    def report(self) -> Report | None:
        return self.answer.report

    def prompt(self) -> str:
        """What the model reads of it: the documents, then the question, as the bundled models were trained."""
        if self.role == "assistant":
            return self.answer.text
        return "".join(self._parts()) + self.question

    def read_of(self, index: int, report: Report) -> list[tuple[int, int]] | None:
        """Characters of document `index` that the device read for the answer to this question; None where it was to
        read all of them."""
        if not report.prompt_read:
            return None
        last = report.prompt_read[-1].message
        begin = sum(len(part) for part in self._parts()[:index]) + len(self._heading(index))
        end = begin + len(self.attachments[index].text)
        return [
            (max(span.start, begin) - begin, min(span.stop, end) - begin)
            for span in report.prompt_read
            if span.message == last and max(span.start, begin) < min(span.stop, end)
        ]

    def _parts(self) -> list[str]:
        return [f"{self._heading(i)}{item.text}\n\n" for i, item in enumerate(self.attachments)]

    def _heading(self, index: int) -> str:
        return f"# {self.attachments[index].name}\n\n" if len(self.attachments) > 1 else ""


def _problem(text: str) -> Problem:
    title, _, rest = text.partition(": ")
    return Problem(title, rest)
