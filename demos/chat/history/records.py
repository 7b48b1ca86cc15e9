"""What is kept of a conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from device_sdk import Report, Source

Role = Literal["user", "assistant"]
#: `streaming`: being written, here or in another window, or cut off by a crash; `touched_at` tells.
State = Literal["streaming", "whole", "stopped", "failed", "cut_off"]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A document given with a question, as plain text."""

    name: str
    kind: Literal["text", "markdown", "pdf"]
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """Characters [start, stop) of a text came from `source`."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Details:
    """How an answer came about."""

    runs: tuple[Run, ...] = ()
    report: Report | None = None
    #: What was said beside it while it streamed.
    notices: tuple[str, ...] = ()
    #: Why it failed, and what to do.
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, which is a tree: an edited question is a sibling of the first one."""

    id: str
    parent: str | None
    role: Role
    text: str
    state: State = "whole"
    attachments: tuple[Attachment, ...] = ()
    details: Details = field(default_factory=Details)
    #: Seconds since 1970.
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """A conversation in a list."""

    id: str
    title: str
    pinned: bool
    #: Seconds since 1970.
    created_at: float
    updated_at: float
    #: Where a search found it; empty without a search.
    snippet: str = ""
    #: Nothing was asked yet: a draft, or documents, or both.
    unsent: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything about one. `leaf` ends the branch that is shown."""

    summary: Summary
    messages: tuple[Message, ...] = ()
    leaf: str | None = None
    draft: str = ""
    #: Documents that wait for the next question.
    pending: tuple[Attachment, ...] = ()
