"""The networks that can be emulated, and when bytes that enter one come out. No I/O, no clock: callers say what time
it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_runtime.profiles.links import LinkProfile, link_names, load_link

if TYPE_CHECKING:
    import random

#: Ready profiles by name; each says where its figures come from.
LINKS: dict[str, LinkProfile] = {name: load_link(name) for name in link_names()}

#: Adds nothing: only faults.
LOOPBACK = LINKS["loopback"]


class Lane:
    """One direction of a link, shared by all its connections, first in first out as a radio's queue is."""

    def __init__(self, *, one_way: float, jitter: float, kbps: float | None, rng: random.Random) -> None:
        """`one_way` and `jitter` in seconds."""
        self.one_way = one_way
        #: Seconds added to every delay from now on.
        self.extra = 0.0
        self._jitter = jitter
        self._bytes_per_second = None if kbps is None else kbps * 1000 / 8
        self._rng = rng
        self._idle_from = 0.0
        self._last_arrival = 0.0

    def pieces(self, data: bytes) -> list[bytes]:
        """Cut what would hold the lane for long into pieces of about 2 ms, so that its first bytes come out first."""
        if self._bytes_per_second is None:
            return [data]
        size = max(1_440, int(self._bytes_per_second * 0.002))
        return [data[start : start + size] for start in range(0, len(data), size)]

    def draw_jitter(self) -> float:
        """Seconds; drawn once for what is sent together."""
        return self._rng.expovariate(1 / self._jitter) if self._jitter else 0.0

    def arrival(self, now: float, size: int, jitter: float) -> float:
        """When `size` bytes that enter at `now` are out; never before what entered earlier."""
        sent = max(now, self._idle_from)
        if self._bytes_per_second is not None:
            sent += size / self._bytes_per_second
        self._idle_from = sent
        self._last_arrival = max(self._last_arrival, sent + self.one_way + self.extra + jitter)
        return self._last_arrival
