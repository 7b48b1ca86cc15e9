"""An engine process that gives every running generation one token each 50 ms. Emulated.

A process of its own, started by the service of `benchmarks.stream_gateway` as its own engine processes are.
"""

from __future__ import annotations

import os
import sys
import time

from benchmarks.cost_engine import CostEngine
from cloud_service.pool import worker
from cloud_service.settings import Settings

TICK, MOST_BEHIND = 0.05, 0.2


class Ticks:
    """Passes end at the multiples of TICK on the machine's monotonic clock, which all processes share.

    One that begins late takes no time, as an engine whose passes are much shorter than TICK makes good what was lost;
    but one that is MOST_BEHIND, as after a time without generations, starts afresh.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, _: object) -> float:
        now = time.monotonic()
        if now > self._next + MOST_BEHIND:
            self._next = now - now % TICK
        self._next += TICK
        return max(0.0, self._next - now)


def ticking_engine(streams: int) -> CostEngine:
    return CostEngine(Ticks(), time.sleep, max_sequences=streams)


def main() -> int:
    os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})

    def load(settings: Settings, *_: object) -> CostEngine:
        return ticking_engine(settings.max_sequences)

    return worker.main(load)


if __name__ == "__main__":
    sys.exit(main())
