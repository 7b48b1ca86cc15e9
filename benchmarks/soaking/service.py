"""The service under soak, a process of its own with real engine processes. One more endpoint says what it holds.

Started by `benchmarks.soak` with settings as JSON; prints its port once all instances are ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from cloud_service.app import create_app
from cloud_service.pool.backend import PoolBackend
from cloud_service.server import CloudServer
from cloud_service.service import Broken, Service, Serving
from cloud_service.settings import Settings
from http_api.serving import listen, run

STATE = "/soak/state"


def state(service: Service) -> dict[str, Any]:
    """What the process holds now."""
    if not isinstance(service.state, Serving) or not isinstance(service.state.desk.backend, PoolBackend):
        return {"serving": False}
    backend = service.state.desk.backend
    return {
        "serving": True,
        "pid": os.getpid(),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - links that may be gone
        "connections": len(service.connections),
        "generations": backend.occupancy().running + backend.occupancy().waiting + backend.occupancy().lingering,
        "instances": [
            {
                "pid": each.pid,
                "ready": each.ready,
                "legs": len(each.legs),
                "live": each.occupancy.running + each.occupancy.waiting + each.occupancy.lingering,
                "kv_share": each.occupancy.kv_share,
                "crashes": each.restarts.total,
            }
            for each in backend.instances
        ],
    }


async def serve(settings: Settings) -> None:
    app = create_app(settings)
    service: Service = app.state.service

    @app.get(STATE)
    async def tell() -> dict[str, Any]:
        return state(service)

    with listen(settings.host, 0) as listener:
        server = CloudServer(app, service, settings)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await service.settled.wait()
        if isinstance(service.state, Broken):
            sys.exit(service.state.cause)
        while not all(each["ready"] for each in state(service)["instances"]):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.1)
        print(listener.getsockname()[1], flush=True)
        await serving


if __name__ == "__main__":
    run(serve(Settings(**json.loads(sys.argv[1]))))
