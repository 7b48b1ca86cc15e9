"""`/v1/models`, `/v1/chat/completions` and `/v1/completions`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from device_sdk.local_server.answer import Answer
from device_sdk.local_server.asking import ask_chat, ask_text
from device_sdk.local_server.extension import HEADER, LocalChatRequest, LocalCompletionRequest
from device_sdk.local_server.reporting import report_header
from device_sdk.local_server.service import LocalService
from http_api.doors import ANY
from http_api.exchange import ClientGoneError, EventStream, read_body, to_nobody, unless_gone
from http_api.openai.errors import ApiError
from http_api.openai.replies import model_list, model_object

OWNER = "pd-local"


def openai_router(service: LocalService) -> APIRouter:
    """The OpenAI endpoints of `service`. What they raise is an ApiError, or that the client is gone."""
    router = APIRouter(prefix="/v1")
    settings = service.settings

    @router.get("/models")
    async def models() -> Response:
        names = [service.name, *(alias for alias in settings.aliases if alias != ANY)]
        return JSONResponse(model_list(dict.fromkeys(names), OWNER))

    @router.get("/models/{name:path}")
    async def model(name: str) -> Response:
        _check_model(service, name)
        return JSONResponse(model_object(name, OWNER))

    @router.post("/chat/completions")
    async def chat_completions(request: Request) -> Response:
        _ = service.client  # a body need not be read where nothing can be answered
        asked = await read_body(request, LocalChatRequest, settings.max_body_bytes)
        _check_model(service, asked.model)
        return await _respond(request, ask_chat(service, asked), stream=bool(asked.stream))

    @router.post("/completions")
    async def completions(request: Request) -> Response:
        _ = service.client
        asked = await read_body(request, LocalCompletionRequest, settings.max_body_bytes)
        _check_model(service, asked.model)
        return await _respond(request, ask_text(service, asked), stream=bool(asked.stream))

    return router


async def _respond(request: Request, answer: Answer, *, stream: bool) -> Response:
    """Raises ApiError, and ClientGoneError."""
    begun = False
    try:
        if stream:
            await unless_gone(request, answer.begin())
            begun = True
            return EventStream(answer.stream(), answer.close)
        body, report = await unless_gone(request, answer.whole())
        return JSONResponse(body, headers={HEADER: report_header(report)})
    finally:
        if not begun:
            await answer.close()


def _check_model(service: LocalService, name: str) -> None:
    """Raises ApiError."""
    aliases = service.settings.aliases
    if name == service.name or name in aliases or ANY in aliases:
        return
    text = f"the model {name[:100]!r} is not served here; {service.name!r} is (see the setting `aliases`)"
    raise ApiError(404, text, param="model", code="model_not_found")


def gone(_: Request, __: Exception) -> Response:
    """Handles ClientGoneError and ClientDisconnect."""
    return to_nobody()


GONE = (ClientGoneError, ClientDisconnect)
