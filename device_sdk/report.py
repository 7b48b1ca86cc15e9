"""What a generation reports about itself. Times are seconds since it was submitted unless the name says `_ms`."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal

from device_sdk.settings import Mode
from model_runtime.tools.spec import ToolCall

#: `eos`, `stop`, `length`: the answer is whole. `cancelled`: by the caller. `failed`: no side could go on.
FinishReason = Literal["eos", "stop", "length", "cancelled", "failed"]

#: Something that did not stop the answer.
NoticeKind = Literal[
    "cloud_refused", "cloud_lost", "device_unusable", "device_failed", "extended", "refinement_ignored", "turns_dropped"
]

#: As `guard` of the protocol's `refinement`: but for `passed`, the whole prompt is kept.
GuardDecision = Literal["passed", "flat", "short", "failed", "unavailable"]


class Source(enum.Enum):
    """Who supplied a token."""

    CLOUD = "cloud"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """Output tokens [start, stop) came from `source`."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Characters [start, stop) of the content of message `message`, counted from 0."""

    message: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Guard:
    """What the cloud decided about leaving out parts of the prompt, and why (for people; may be empty)."""

    decision: GuardDecision
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each thing happened, for plots and for replaying."""

    #: When output token i was in hand, and when it was shown.
    arrivals: tuple[float, ...] = ()
    releases: tuple[float, ...] = ()
    #: (time, tokens of prompt and received output in the device's KV cache).
    device_progress: tuple[tuple[float, int], ...] = ()
    #: (time, grant in all) as first asked and as extended.
    grants: tuple[tuple[float, int], ...] = ()
    #: (time, share of the prompt kept from then on) for each refinement.
    refinements: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """How one answer was made. The metrics are defined in docs/metrics.md."""

    mode: Mode
    finish_reason: FinishReason
    prompt_tokens: int
    #: Why this mode: as asked for, or by the plan and what the device had read already; for people.
    route_reason: str = ""
    #: Prompt tokens that the device did not read again, as an earlier turn's KV cache held them.
    reused_tokens: int = 0
    spans: tuple[SourceSpan, ...] = ()
    #: To the first token shown; None when none was.
    ttft_ms: float | None = None
    #: To the first token of the answer itself; later than `ttft_ms` where the model thinks before it answers.
    ttft_visible_ms: float | None = None
    #: Output tokens of thinking.
    thinking_tokens: int = 0
    #: Mean and largest time between two shown tokens; None below two tokens.
    tpot_mean_ms: float | None = None
    max_gap_ms: float | None = None
    #: The even pace that the speed controller aimed at; None where pacing is off.
    pace_ms: float | None = None
    cloud_tokens: int = 0
    device_tokens: int = 0
    #: Index of the first token that the device supplied after the cloud began; None without a hand-over.
    handover_index: int | None = None
    #: Output tokens that the cloud was allowed in all.
    grant: int = 0
    #: Time of the cloud's passes for this answer, as the cloud reported it; None where it could not.
    cloud_busy_ms: float | None = None
    #: Share of the received tokens it has checked that the device would have said itself; None without any.
    agreement: float | None = None
    #: Share of the prompt's tokens that the device prefilled, or still would have; 1.0 without a refinement.
    prompt_kept: float = 1.0
    #: What of the messages the device read, in order; empty where it was to read all of them.
    prompt_read: tuple[TextSpan, ...] = ()
    #: When the first refinement came; None without any.
    refinement_ms: float | None = None
    #: Refinements used; one that came too late to change anything counts.
    refinement_stages: int = 0
    #: Of the latest refinement; None without any.
    guard: Guard | None = None
    #: Whether the cloud answered from what it had the device keep, which it read a second time.
    reread: bool = False
    #: Why the mode's first choice did not serve to the end, in order of happening.
    notices: tuple[str, ...] = ()
    timeline: Timeline = field(default_factory=Timeline)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole or partial answer. `token_ids` is empty where only text travelled and no tokenizer is at hand.

    `tool_calls` are what the model asks to have called, in order; their text is not in `text`. The last one may have
    been cut off where `report.finish_reason` is `length`.
    """

    text: str
    token_ids: tuple[int, ...]
    report: Report
    #: What a reasoning model thought before it answered.
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
