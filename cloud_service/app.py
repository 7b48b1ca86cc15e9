"""The app factory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cloud_service.auth import refuse_open_service
from cloud_service.openai_api.endpoints import openai_router
from cloud_service.service import Broken, Draining, LoadEngine, Loading, Service, Serving, Stopped
from cloud_service.sessions.endpoint import device_router
from cloud_service.settings import Settings
from model_runtime.core import Cancellation, Engine
from model_runtime.emulated import EmulatedEngine
from model_runtime.loading import load_engine
from model_runtime.profiles import load_profile


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """The service as an ASGI app; `app.state.service` is its Service.

    With an `engine`, that one is served, and shut down at the end; else the one that the settings name is loaded
    while the app already answers. Raises OpenServiceError for settings that would let strangers in.
    """
    refuse_open_service(settings.host, settings.keys)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # start
        if engine is not None:
            service.serve(engine)
        else:
            service.start(_loader(settings))
        # serve
        yield
        # drain (already done under CloudServer, which drains while devices are still connected)
        await service.drain()

    app = FastAPI(title="pd-cloud", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    service = Service(settings)
    app.state.service = service
    app.include_router(device_router(service))
    app.include_router(openai_router(service))

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the process is alive: 503 once its engine has failed and only a restart helps."""
        alive = not isinstance(service.state, Broken)
        return JSONResponse({"status": "ok" if alive else "broken"}, 200 if alive else 503)

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether new generations are taken on."""
        match service.state:
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


def _loader(settings: Settings) -> LoadEngine:
    """What loads the engine that the settings name; emulated hardware where they name a profile."""

    def load(cancellation: Cancellation) -> Engine:
        profile = None if settings.emulate is None else load_profile(settings.emulate)
        engine = load_engine(
            settings.model,
            engine=settings.engine,
            context_length=settings.context_length,
            max_sequences=settings.max_sequences,
            threads=settings.threads,
            providers=settings.providers,
            gpu_layers=settings.gpu_layers,
            cancellation=cancellation,
        )
        return engine if profile is None else EmulatedEngine(engine, profile)

    return load
