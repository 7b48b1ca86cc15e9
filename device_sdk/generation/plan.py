"""What a generation is asked to do, and what a mode allows it to use."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from device_sdk.generation.spans import Spans
from device_sdk.settings import Mode
from model_runtime.thinking import ThinkingReader


class TokenSide(Protocol):
    """The part of a tokenizer that the generation needs."""

    @property
    def eos_ids(self) -> frozenset[int]: ...
    def encode(self, text: str, *, special: bool = False) -> list[int]: ...
    def token_bytes(self, token: int) -> bytes: ...


class Use(enum.Enum):
    """When a side works: from the start, only if the other fails, or not at all."""

    START = "start"
    STANDBY = "standby"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Sides:
    device: Use
    cloud: Use
    #: The cloud gives a bounded grant and the device finishes; otherwise the cloud gives the whole answer.
    hand_over: bool = False


SIDES = {
    Mode.SPLIT: Sides(Use.START, Use.START, hand_over=True),
    Mode.ONLY_ON_DEVICE: Sides(Use.START, Use.NEVER),
    Mode.PREFER_ON_DEVICE: Sides(Use.START, Use.STANDBY),
    Mode.PREFER_IN_CLOUD: Sides(Use.STANDBY, Use.START),
    Mode.ONLY_IN_CLOUD: Sides(Use.NEVER, Use.START),
}


@dataclass(frozen=True, slots=True)
class RefineWish:
    """Ask the cloud which part of the prompt matters. `protected`, in tokens of the prompt, always stays. `reread`: its
    own tokens are to come from that part alone, too, where the service offers this."""

    keep_ratio: float
    protected: Spans = ()
    reread: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """How a prompt is to fit a context that is shorter: `room` tokens of it at most, of which the device reads
    `read_ahead` before the cloud says which."""

    room: int
    read_ahead: int


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to make. `prompt` is in the device's token ids; empty where the device has no tokenizer."""

    prompt: Sequence[int]
    max_tokens: int
    stop: tuple[str, ...] = ()
    #: None: the device reads the whole prompt.
    refine: RefineWish | None = None
    #: Positions of the prompt that the device's KV cache holds already.
    read: Spans = ()
    #: Where the prompt is longer than the device's context; None where it fits.
    fit: Fit | None = None
    #: Of a reasoning model: tells its thinking from its answer.
    thinking: ThinkingReader | None = None
    #: Seconds that the device leaves it to the cloud before it begins to read.
    device_wait: float = 0.0
    #: Tokens that the cloud may give in all; None: as many as the answer takes.
    cloud_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds; see `device_sdk.settings.Timeouts`. `cloud_attempts` counts the first one."""

    first_token: float = 30.0
    idle: float = 5.0
    device_pass: float = 60.0
    cloud_attempts: int = 3
    #: How often it is considered whether the service is to be told where the device stands; how often it is at least.
    progress_every: float = 0.25
    progress_at_least_every: float = 10.0
