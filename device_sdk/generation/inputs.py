"""What can happen to a generation. Cloud inputs name the attempt they belong to: an earlier one's are dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from device_sdk.report import Guard


@dataclass(frozen=True, slots=True)
class Submitted:
    """The first input, once. `device_problem`: why the device cannot take part in this one."""

    device_problem: str | None = None


@dataclass(frozen=True, slots=True)
class StepDone:
    """The engine has done step `number`. `agreed`: for each received token checked, whether the device would have said
    it itself (same sampling, same noise). `sampled`: the device's next token, where the step asked for one."""

    number: int
    agreed: tuple[bool, ...]
    sampled: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class DeviceFailed:
    """The engine broke, would not load, or cannot take this prompt."""

    message: str


@dataclass(frozen=True, slots=True)
class LinkUp:
    """Connected. `round_trip` in seconds."""

    round_trip: float


@dataclass(frozen=True, slots=True)
class Refined:
    """Which spans of the prompt, in the device's tokens, are to be kept, as the service said."""

    attempt: int
    stage: int
    final: bool
    keep: tuple[tuple[int, int], ...]
    guard: Guard
    #: Whether the cloud's tokens come from these spans alone.
    reread: bool = False


@dataclass(frozen=True, slots=True)
class RefinementRefused:
    """A refinement came that does not fit what was asked for."""

    attempt: int
    message: str


@dataclass(frozen=True, slots=True)
class CloudTokens:
    """Token ids, the first of them number `first` of this attempt."""

    attempt: int
    first: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloudText:
    """Where text travels: bytes that stand for `count` of the cloud's tokens."""

    attempt: int
    first: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class CloudFinished:
    attempt: int
    reason: Literal["grant", "eos", "stop", "stopped", "context"]
    #: Time of the cloud's passes for this attempt, in ms.
    busy_ms: float


@dataclass(frozen=True, slots=True)
class CloudRefused:
    """Refused before anything was generated. `retry_after` in seconds; None: asking again cannot help."""

    attempt: int
    message: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class CloudLost:
    """The link broke, or the service failed."""

    attempt: int
    message: str
    retriable: bool


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The caller wants no more."""


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Time stands still for the generation, nothing is begun and nothing shown; what is under way still counts."""


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """Go on where it was paused."""


@dataclass(frozen=True, slots=True)
class DeviceEmptied:
    """The device's KV cache is gone, and its engine can be used again: everything is to be read anew."""


@dataclass(frozen=True, slots=True)
class Tick:
    """`GenerationMachine.wakeup` has come."""


Input: TypeAlias = (
    Submitted
    | StepDone
    | DeviceFailed
    | LinkUp
    | Refined
    | RefinementRefused
    | CloudTokens
    | CloudText
    | CloudFinished
    | CloudRefused
    | CloudLost
    | CancelRequested
    | PauseRequested
    | ResumeRequested
    | DeviceEmptied
    | Tick
)
