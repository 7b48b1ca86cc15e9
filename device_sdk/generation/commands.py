"""What a generation wants done. The driver performs them in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from device_sdk.report import FinishReason, Guard, NoticeKind, Source


@dataclass(frozen=True, slots=True)
class Step:
    """One pass of the device's engine; at most one is under way. Answered by StepDone or DeviceFailed.

    `tokens` go into the sequence after it was cut to `keep` tokens. `received` holds the known tokens that follow the
    last positions of the step, for the agreement; the first of them is output token `first_received`. Where
    `sample_at` is not None, nothing is known to follow the last token: sample output token `sample_at` from its
    logits, given `output` (the output so far).
    """

    number: int
    keep: int
    tokens: tuple[int, ...]
    received: tuple[int, ...]
    first_received: int
    sample_at: int | None
    output: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CancelStep:
    """End the step under way as soon as the engine can; its StepDone will be ignored."""


@dataclass(frozen=True, slots=True)
class AskCloud:
    """Open a generation of up to `grant` tokens that goes on from the output so far: `text`, and as token ids where
    each of its tokens has one (else None). `refine`: ask for a refinement, too."""

    attempt: int
    grant: int
    output: tuple[int, ...] | None
    text: str
    refine: bool = False


@dataclass(frozen=True, slots=True)
class ExtendCloud:
    """Raise the attempt's grant to `grant` in all."""

    attempt: int
    grant: int


@dataclass(frozen=True, slots=True)
class StopCloud:
    """The device needs no more of the attempt. `answer_tokens`, where the answer is whole: how many tokens it has from
    the attempt's first on, for the service's account; only then can the attempt have ended before."""

    attempt: int
    reason: Literal["taken_over", "cancelled"]
    answer_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TellProgress:
    """Let the service order its work by slack. `pace` and `ready_in` in seconds."""

    attempt: int
    received: int
    shown: int
    pace: float
    ready_in: float | None


@dataclass(frozen=True, slots=True)
class Show:
    """Output token `index` is to be shown now: `text` of the answer, `thought` of the thinking. `hidden`: it is all
    thinking."""

    index: int
    token: int | None
    text: str
    source: Source
    thought: str = ""
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class AnnounceHandOver:
    index: int


@dataclass(frozen=True, slots=True)
class AnnounceRefinement:
    """A refinement came; `kept` is the share of the prompt that the device has prefilled or still will."""

    stage: int
    final: bool
    kept: float
    guard: Guard


@dataclass(frozen=True, slots=True)
class Notify:
    kind: NoticeKind
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """Terminal, once and last."""

    reason: FinishReason


Command: TypeAlias = (
    Step
    | CancelStep
    | AskCloud
    | ExtendCloud
    | StopCloud
    | TellProgress
    | Show
    | AnnounceHandOver
    | AnnounceRefinement
    | Notify
    | Done
)
