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

TICK = 0.05


def until_next_tick(_: object) -> float:
    """Seconds to the next multiple of TICK on the machine's monotonic clock, which all processes share."""
    return TICK - time.monotonic() % TICK


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
    engine = CostEngine(until_next_tick, time.sleep, max_sequences=streams)
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
