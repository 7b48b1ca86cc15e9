"""The app factory."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.cors import CORSMiddleware

from cloud_service.auth import refuse_open_service
from cloud_service.loading import load, refinery_for
from cloud_service.openai_api.endpoints import openai_router
from cloud_service.refinement.refinery import Refinery
from cloud_service.service import Broken, Connect, Draining, Loading, Service, Serving, Stopped
from cloud_service.sessions.endpoint import device_router
from cloud_service.settings import Settings
from http_api.doors import OriginGate
from model_runtime.core import Engine


def create_app(
    settings: Settings,
    engine: Engine | None = None,
    refinery: Refinery | None = None,
    *,
    connecting: Callable[[Service], Connect] | None = None,
) -> FastAPI:
    """The service as an ASGI app; `app.state.service` is its Service.

    With an `engine`, that one is served, and shut down at the end, with `refinery` or with the one that the settings
    ask for; with `connecting`, what that opens for the Service; else the engine that the settings name is loaded while
    the app already answers. Raises OpenServiceError for settings that would let strangers in, KeyFileError and
    LimitStoreError for what they name and cannot be used.
    """
    refuse_open_service(settings.host, settings.key_file)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # start
        if engine is not None:
            service.serve(engine, refinery or refinery_for(settings, engine.info))
        elif connecting is not None:
            service.connect(connecting(service))
        elif settings.instances is not None:
            from cloud_service.pool.open import open_pool

            service.connect(functools.partial(open_pool, settings, service.metrics, service.engine_failed))
        elif settings.upstream == "off":
            service.start(functools.partial(load, settings))
        else:
            from cloud_service.upstream.connect import connect

            service.connect(functools.partial(connect, settings))
        # serve
        yield
        # drain (already done under CloudServer, which drains while devices are still connected)
        await service.drain()

    app = FastAPI(title="pd-cloud", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    service = Service(settings)
    app.state.service = service
    app.include_router(device_router(service))
    app.include_router(openai_router(service))
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    app.add_middleware(OriginGate, origins=settings.origins)

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the process is alive: 503 once its engine has failed and only a restart helps."""
        alive = not isinstance(service.state, Broken)
        return JSONResponse({"status": "ok" if alive else "broken"}, 200 if alive else 503)

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether new generations are taken on."""
        match service.state:
            case Serving(desk) if not desk.backend.ready():
                status = "no engine is ready"
            case Serving(desk):
                return JSONResponse({"status": "ready", "model": desk.model_name})
            case Loading():
                status = "loading"
            case Draining() | Stopped():
                status = "draining"
            case Broken():
                status = "broken"
        return JSONResponse({"status": status}, 503, {"retry-after": "1"})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus's text format."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
