"""The app factory."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from device_sdk.local_server.endpoints import GONE, gone, openai_router
from device_sdk.local_server.extension import HEADER
from device_sdk.local_server.service import Broken, Draining, Loading, LocalService, Serving, Stopped
from device_sdk.local_server.settings import LocalSettings
from http_api.doors import HostGate, OriginGate
from http_api.openai.errors import ApiError
from model_runtime.core import Engine


def create_app(settings: LocalSettings, device: Engine | None = None) -> FastAPI:
    """The local server as an ASGI app; `app.state.service` is its LocalService.

    `device` stands in for the model that the settings name, and stays the caller's. Else that model is loaded while the
    app already answers. Raises ConfigurationError.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.drain()  # already done under DrainingServer, while clients were still connected

    app = FastAPI(title="pd-local", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    service = app.state.service = LocalService(settings, device)
    app.include_router(openai_router(service))

    @app.get("/health")
    async def health() -> Response:
        """Whether the process is alive, and what it does: 503 once its model cannot be loaded."""
        return JSONResponse(_health(service), 503 if isinstance(service.state, Broken) else 200)

    @app.get("/ready")
    async def ready() -> Response:
        """Whether new answers are taken on: 503 with the load's progress until then."""
        if isinstance(service.state, Serving):
            return JSONResponse(_health(service))
        return JSONResponse(_health(service), 503, {"retry-after": "1"})

    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _no_such_endpoint)
    for kind in GONE:
        app.add_exception_handler(kind, gone)
    # The last one added is the first one asked.
    if settings.key is not None:
        app.add_middleware(KeyGate, key=settings.key)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[HEADER],
        )
    app.add_middleware(OriginGate, origins=settings.origins)
    app.add_middleware(HostGate, hosts=(*settings.hosts, settings.host))
    return app


class KeyGate:
    """ASGI middleware: `/v1` is for those who send the key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            # In constant time, so that the time taken does not tell how much of a guess was right.
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key):
                refusal = ApiError(401, "the bearer key is missing or wrong", code="invalid_api_key").response()
                refusal.headers["www-authenticate"] = "Bearer"
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _health(service: LocalService) -> dict[str, Any]:
    match service.state:
        case Loading(None):
            return {"status": "loading"}
        case Loading(progress) if progress is not None:
            return {"status": "loading", "stage": progress.stage, "fraction": round(progress.fraction, 3)}
        case Serving(name):
            running = {"running": service.running, "device_problem": service.device_problem()}
            return {"status": "ready", "model": name, **running}
        case Broken(cause):
            return {"status": "broken", "cause": cause}
        case Draining() | Stopped() | Loading():
            return {"status": "draining"}


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - what this handler was added for
    return error.response()


def _no_such_endpoint(request: Request, error: Exception) -> Response:
    """What the router refuses, in the shape that OpenAI's clients read."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    text = f"{request.method} {request.url.path[:100]}: {error.detail}"
    response = ApiError(error.status_code, text, code="unknown_endpoint").response()
    response.headers.update(error.headers or {})
    return response
