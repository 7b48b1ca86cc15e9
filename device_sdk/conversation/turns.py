"""The turns of a conversation, and the messages that they make. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from device_sdk.report import Report
from model_runtime.core import Message
from model_runtime.tools.spec import ToolCall


@dataclass(frozen=True, slots=True)
class Turn:
    """What was asked, one or several messages, and what was answered."""

    asked: tuple[Message, ...]
    answer: str
    #: What the model asked to have called; the results are asked with next, as messages of the role `tool`.
    tool_calls: tuple[ToolCall, ...] = ()
    #: False where the answer was cut short by the caller.
    complete: bool = True
    #: How the answer was made; None for one that was restored from a file.
    report: Report | None = None

    @property
    def question(self) -> str:
        """The text of the last message asked."""
        return self.asked[-1]["content"]

    @property
    def messages(self) -> tuple[Message, ...]:
        said = Message(role="assistant", content=self.answer)
        if self.tool_calls:
            said["tool_calls"] = self.tool_calls
        return (*self.asked, said)


def messages_of(system: str | None, turns: Sequence[Turn], asked: Sequence[Message] = ()) -> list[Message]:
    """A prompt: the system text, the turns, and what is asked next."""
    first = [] if system is None else [Message(role="system", content=system)]
    return [*first, *(message for turn in turns for message in turn.messages), *asked]


def asked_messages(content: str | Sequence[Message]) -> tuple[Message, ...]:
    """One user message for a text."""
    return (Message(role="user", content=content),) if isinstance(content, str) else tuple(content)
