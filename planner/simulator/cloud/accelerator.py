"""How long an accelerator's passes take, from its hardware profile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from planner.simulator.pass_times import PassTimes

#: Random numbers drawn in one go.
DRAWN = 4_096


@dataclass(slots=True)
class Accelerator:
    """`HardwareProfile.pass_ms` for many sequences that decode at once, taken at their mean context: they are counted,
    not listed. `rng`: of the jitter, which no other accelerator draws from."""

    times: PassTimes
    rng: np.random.Generator
    _noise: Iterator[float] = field(init=False)

    def __post_init__(self) -> None:
        self._noise = self._draw()

    def seconds(self, decoding: int, mean_context: float, chunks: Sequence[tuple[int, int]]) -> float:
        """One pass over `decoding` sequences and prefill `chunks` of (tokens in context before, new tokens), without
        jitter."""
        times = self.times
        profile = times.profile
        if not decoding:
            return times.seconds(*chunks[0]) if len(chunks) == 1 else profile.pass_ms(chunks) / 1000
        read = times.decode_ms(round(mean_context))
        if profile.batch_share is None:
            alone = profile.pass_ms(chunks) if chunks else profile.pass_overhead_ms
            return (alone + decoding * read) / 1000
        prefill = sum([self._chunk_ms(context, new) for context, new in chunks]) if chunks else 0.0
        return (profile.pass_overhead_ms + max(prefill, read) + profile.batch_share * (decoding - 1) * read) / 1000

    def jittered(self, seconds: float) -> float:
        return seconds * next(self._noise)

    def _chunk_ms(self, context: int, new: int) -> float:
        """A chunk beside sequences that decode: no more than it costs alone."""
        block = self.times.profile.prefill_block
        padded = -(-new // block) * block
        return self.times.prompt_ms(context + padded) - (self.times.prompt_ms(context) if context else 0.0)

    def _draw(self) -> Iterator[float]:
        jitter = self.times.profile.jitter
        while True:
            yield from np.maximum(0.1, self.rng.normal(1.0, jitter, DRAWN)).tolist() if jitter else [1.0] * DRAWN
