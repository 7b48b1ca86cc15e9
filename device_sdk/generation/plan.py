"""What a generation is asked to do, and what a mode allows it to use."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from device_sdk.settings import Mode


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
class Request:
    """One answer to make. `prompt` is in the device's token ids; empty where the device has no tokenizer."""

    prompt: Sequence[int]
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds; see `device_sdk.settings.Timeouts`. `cloud_attempts` counts the first one."""

    first_token: float = 30.0
    idle: float = 5.0
    device_pass: float = 60.0
    cloud_attempts: int = 3
    progress_every: float = 0.25
