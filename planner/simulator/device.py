"""One answer's device: how long its passes take, from the hardware profile."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from device_sdk.generation.commands import Step
    from planner.simulator.pass_times import PassTimes

#: The only token of simulated answers, and the one that ends them.
TOKEN, EOS = 1, 0


class Tokens:
    """A tokenizer for answers of which only the length matters."""

    eos_ids = frozenset({EOS})

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [TOKEN] * len(text)

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == EOS else b"a"


@dataclass(slots=True)
class Device:
    """The passes of one answer of `length` tokens, in order: with equal `rng` they take equally long, however often the
    answer is played. A `DeviceSide` of `device_sdk.testing.simulation`."""

    times: PassTimes
    length: int
    rng: random.Random
    #: How much slower the whole answer is than the profile.
    factor: float = field(init=False)

    def __post_init__(self) -> None:
        spread = self.times.profile.spread
        self.factor = max(0.2, self.rng.gauss(1.0, spread)) if spread else 1.0

    def next_token(self, output: Sequence[int]) -> int | None:
        return TOKEN if len(output) < self.length else None

    def seconds(self, step: Step) -> float:
        return self.pass_seconds(step.keep, len(step.tokens))

    def pass_seconds(self, context: int, new: int) -> float:
        jitter = self.times.profile.jitter
        noise = max(0.2, self.rng.gauss(1.0, jitter)) if jitter else 1.0
        return self.times.seconds(context, new) * self.factor * noise

    def prefill(self, context: int, tokens: int) -> float:
        """Seconds to take `tokens` more after `context`, in passes as the SDK makes them."""
        chunk = self.times.chunk
        return sum(self.pass_seconds(context + start, min(chunk, tokens - start)) for start in range(0, tokens, chunk))

    def decode(self, context: int, count: int, noise: np.random.Generator) -> NDArray[np.float64]:
        """When each of `count` tokens after `context` is made, in seconds from the beginning of the first."""
        profile = self.times.profile
        ends = self.times.decode_ms(context), self.times.decode_ms(context + count)
        seconds = np.linspace(*ends, count) / 1000 + profile.pass_overhead_ms / 1000
        if profile.jitter:
            seconds = seconds * np.maximum(0.2, noise.normal(1.0, profile.jitter, count))
        return np.cumsum(seconds * self.factor)
