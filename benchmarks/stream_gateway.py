"""The service on one core, over an engine that gives every running generation one token each 50 ms. Emulated.

A process of its own, started by `benchmarks.streams`; prints its port.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time

from benchmarks.cost_engine import CostEngine
from cloud_service.app import create_app
from cloud_service.server import CloudServer
from cloud_service.settings import Settings
from http_api.serving import listen, run

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


async def serve(streams: int) -> None:
    settings = Settings(
        model="emulated",
        max_sequences=streams,
        queue_depth=streams,
        max_generations=streams,
        pass_tokens=4 * streams + 4096,
        prefix_cache="off",
        drain_ms=0.0,
        log_level="error",
    )
    engine = CostEngine(Ticks(), time.sleep, max_sequences=streams)
    app = create_app(settings, engine)
    with listen(settings.host, 0) as listener:
        server = CloudServer(app, app.state.service, settings)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await app.state.service.settled.wait()
        print(listener.getsockname()[1], flush=True)
        await serving


def main() -> None:
    core, streams = int(sys.argv[1]), int(sys.argv[2])
    os.sched_setaffinity(0, {core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    run(serve(streams))


if __name__ == "__main__":
    main()
