"""The service on one core, over an emulated engine: one in a process of its own on the other cores, as `pd-cloud serve
--instances 1` has it, or one in the same process.

A process of its own, started by `benchmarks.streams`; prints its port.
"""

from __future__ import annotations

import asyncio
import functools
import os
import resource
import sys

from benchmarks.stream_engine import ticking_engine
from cloud_service.app import create_app
from cloud_service.pool.open import open_pool
from cloud_service.server import CloudServer
from cloud_service.service import Connect, Service
from cloud_service.settings import Settings
from http_api.serving import listen, run, settle_heap
from model_runtime.testing import ScriptedTokenizer


async def serve(streams: int, engine_cores: set[int]) -> None:
    """Without `engine_cores` the engine is in this process."""
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

    def connecting(service: Service) -> Connect:
        cores = ",".join(map(str, engine_cores))
        command = (sys.executable, "-m", "benchmarks.stream_engine", cores)
        return functools.partial(
            open_pool,
            settings,
            service.metrics,
            service.engine_failed,
            command=command,
            load_tokenizer=lambda _: ScriptedTokenizer(),
        )

    app = create_app(settings, connecting=connecting) if engine_cores else create_app(settings, ticking_engine(streams))
    with listen(settings.host, 0) as listener:
        server = CloudServer(app, app.state.service, settings)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await app.state.service.settled.wait()
        settle_heap()
        print(listener.getsockname()[1], flush=True)
        await serving


def main() -> None:
    core, streams, apart = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "apart"
    others = os.sched_getaffinity(0) - {core} if apart else set()
    os.sched_setaffinity(0, {core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    run(serve(streams, others))


if __name__ == "__main__":
    main()
