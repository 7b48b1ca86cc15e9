"""One answer's way over the network, each way first in, first out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from planner.wire import LEAST_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_runtime.profiles import LinkProfile


@dataclass(slots=True)
class Path:
    """One direction for one answer. Its connection is open already: the SDK keeps it so."""

    link: LinkProfile
    kbps: float | None
    rng: random.Random
    bytes: int = 0
    _last: float = field(default=0.0)

    def arrival(self, sent: float, size: int) -> float:
        """When `size` bytes sent at `sent` are there; never before what was sent earlier."""
        link = self.link
        self.bytes += size
        delay = link.rtt_ms / 2000 + self.transmission(size)
        if link.jitter_ms:
            delay += self.rng.expovariate(1000 / link.jitter_ms)
        if link.loss and self.rng.random() < link.loss:
            delay += LEAST_TIMEOUT + link.rtt_ms / 1000
        self._last = max(self._last, sent + delay)
        return self._last

    def arrivals(self, sent: Sequence[float], size: int, noise: np.random.Generator) -> NDArray[np.float64]:
        """The same for many messages at once."""
        link = self.link
        count = len(sent)
        self.bytes += size * count
        there = np.asarray(sent, dtype=np.float64) + link.rtt_ms / 2000 + self.transmission(size)
        if link.jitter_ms:
            there += noise.exponential(link.jitter_ms / 1000, count)
        if link.loss:
            there += (noise.random(count) < link.loss) * (LEAST_TIMEOUT + link.rtt_ms / 1000)
        if count:
            there[0] = max(there[0], self._last)
            there = np.maximum.accumulate(there)
            self._last = float(there[-1])
        return there

    def transmission(self, size: int) -> float:
        """Seconds for `size` bytes to enter the link."""
        return size * 8 / (self.kbps * 1000) if self.kbps else 0.0


@dataclass(slots=True)
class Network:
    """Both directions of one answer's link."""

    up: Path
    down: Path

    @classmethod
    def of(cls, link: LinkProfile, rng: random.Random) -> Network:
        return cls(Path(link, link.up_kbps, rng), Path(link, link.down_kbps, rng))
