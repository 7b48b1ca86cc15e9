"""What `HybridClient.stream` yields. Exactly one terminal event (`Finished`, `Failed`, `Cancelled`) comes, last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from device_sdk.errors import GenerationFailedError
from device_sdk.report import Answer, Guard, NoticeKind, Source
from model_runtime.tools.reader import CallArguments, CallBegun, CallEnded


@dataclass(frozen=True, slots=True)
class Token:
    """One output token, at the moment when it is to be shown.

    `text` is what it adds to the visible text: empty while a character or a possible stop string is incomplete.
    `token_id` is None where text travelled. When an answer ends in what might have become a stop string, the text
    held back comes in one more event with the last token's index and no id; so does what only looked like a call.
    Where tools were given, a call's text is not in `text`: CallBegun, CallArguments and CallEnded tell of it.
    """

    index: int
    text: str
    source: Source
    token_id: int | None


@dataclass(frozen=True, slots=True)
class Thought:
    """One output token of a reasoning model's thinking, as Token; it is told as it comes, not at an even pace.

    `text` is what it adds to the thinking: empty for a tag, and while a character or a possible tag is incomplete.
    """

    index: int
    text: str
    source: Source
    token_id: int | None


@dataclass(frozen=True, slots=True)
class HandOver:
    """The device supplies the answer from output token `index` on."""

    index: int


@dataclass(frozen=True, slots=True)
class Refined:
    """The cloud said which part of the prompt matters; the device leaves out what it has not yet read of the rest.

    `kept` is the share of the prompt (0 to 1) that the device reads in all. Stages count from 1; a later one replaces
    what an earlier one said of the part not yet read. `guard.decision` is `passed` where something may be left out.
    """

    stage: int
    final: bool
    kept: float
    guard: Guard


@dataclass(frozen=True, slots=True)
class Progress:
    """How far both sides are, where `stream` was asked for it: whenever a token arrived or the device ended a pass.

    `arrived` output tokens are in hand, shown or not; the device's KV cache holds `read` tokens, of a prompt that has
    `prompt` and of the output received so far.
    """

    arrived: int
    read: int
    prompt: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that did not stop the answer: the cloud refused or was lost, the device failed, more was granted, a
    refinement made no sense."""

    kind: NoticeKind
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Terminal: the answer is whole."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Failed:
    """Terminal: no side could finish. `error.answer` holds what there is."""

    error: GenerationFailedError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Terminal: the caller cancelled."""

    answer: Answer


Event: TypeAlias = (
    Token
    | Thought
    | CallBegun
    | CallArguments
    | CallEnded
    | HandOver
    | Refined
    | Progress
    | Notice
    | Finished
    | Failed
    | Cancelled
)
