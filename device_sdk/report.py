"""What a generation reports about itself. Times are seconds since it was submitted unless the name says `_ms`."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal

from device_sdk.settings import Mode

#: `eos`, `stop`, `length`: the answer is whole. `cancelled`: by the caller. `failed`: no side could go on.
FinishReason = Literal["eos", "stop", "length", "cancelled", "failed"]


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
class Timeline:
    """When each thing happened, for plots and for replaying."""

    #: When output token i was in hand, and when it was shown.
    arrivals: tuple[float, ...] = ()
    releases: tuple[float, ...] = ()
    #: (time, tokens of prompt and received output in the device's KV cache).
    device_progress: tuple[tuple[float, int], ...] = ()
    #: (time, grant in all) as first asked and as extended.
    grants: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """How one answer was made. The metrics are defined in docs/metrics.md."""

    mode: Mode
    finish_reason: FinishReason
    prompt_tokens: int
    spans: tuple[SourceSpan, ...] = ()
    #: To the first token shown; None when none was.
    ttft_ms: float | None = None
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
    #: Why the mode's first choice did not serve to the end, in order of happening.
    notices: tuple[str, ...] = ()
    timeline: Timeline = field(default_factory=Timeline)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole or partial answer. `token_ids` is empty where only text travelled and no tokenizer is at hand."""

    text: str
    token_ids: tuple[int, ...]
    report: Report
