"""`/v1/models` and `/v1/chat/completions`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cloud_service.auth import Caller
from cloud_service.desk import Desk
from cloud_service.openai_api.answer import Answer
from cloud_service.openai_api.errors import ApiError, from_validation
from cloud_service.openai_api.schema import ChatRequest
from cloud_service.scheduler.jobs import Job
from cloud_service.service import Service, Serving
from model_runtime.errors import BadInputError

# What a proxy answers where the client closed the connection first; nobody reads it.
_CLIENT_GONE = 499


def openai_router(service: Service) -> APIRouter:
    """The OpenAI endpoints of `service`."""
    router = APIRouter(prefix="/v1")

    @router.get("/models")
    async def models(request: Request) -> Response:
        try:
            _identify(service, request)
            desk = _desk(service)
        except ApiError as error:
            return error.response()
        model = {"id": desk.model_name, "object": "model", "created": 0, "owned_by": "pd-cloud"}
        return JSONResponse({"object": "list", "data": [model]})

    @router.post("/chat/completions")
    async def chat_completions(request: Request) -> Response:
        try:
            caller = _identify(service, request)
            desk = _desk(service)
            asked = await _parse(request, service.settings.max_message_bytes)
            answer = Answer(desk.model_name)
            job = await _job(asked, desk, service, answer.name)
            answer.admit(desk.submit(caller, job, answer.listen))
            if asked.stream:
                return _EventStream(answer, wants_usage=asked.wants_usage)
            return await _whole(request, answer)
        except ApiError as error:
            return error.response()
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)

    return router


class _EventStream(StreamingResponse):
    """Frees the generation however the response ends, even if it is never begun."""

    def __init__(self, answer: Answer, *, wants_usage: bool) -> None:
        super().__init__(
            answer.stream(wants_usage=wants_usage),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        self._end: Callable[[], None] = answer.abandon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


async def _whole(request: Request, answer: Answer) -> Response:
    """The whole answer, unless the client leaves before: then it is not generated to its end."""
    made = asyncio.create_task(answer.whole())
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({made, gone}, return_when=asyncio.FIRST_COMPLETED)
        if made.done():
            return JSONResponse(made.result())
        return Response(status_code=_CLIENT_GONE)
    finally:
        answer.abandon()
        for task in (made, gone):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(made, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _identify(service: Service, request: Request) -> Caller:
    address = request.client.host if request.client else "unknown"
    caller = service.keys.identify(request.headers.get("authorization"), address)
    if caller is None:
        raise ApiError(401, "the bearer key is missing or wrong", code="invalid_api_key")
    return caller


def _desk(service: Service) -> Desk:
    if not isinstance(service.state, Serving):
        raise ApiError(503, "not serving: see /ready", kind="server_error", retry_after_ms=1000)
    return service.state.desk


async def _parse(request: Request, max_bytes: int) -> ChatRequest:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise ApiError(413, f"the body is larger than {max_bytes} bytes")
    try:
        return ChatRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        raise from_validation(error) from None


async def _job(asked: ChatRequest, desk: Desk, service: Service, name: str) -> Job:
    """Raises ApiError."""
    now = time.monotonic()
    if asked.model != desk.model_name:
        text = f"the model {asked.model[:100]!r} is not served here; {desk.model_name!r} is"
        raise ApiError(404, text, param="model", code="model_not_found")
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise ApiError(400, "give max_tokens or max_completion_tokens, not both", param="max_tokens")
    try:
        prompt = tuple(await asyncio.to_thread(desk.tokenizer.render_chat, asked.chat))
    except BadInputError as error:
        raise ApiError(400, str(error), param="messages") from None
    bounds = desk.bounds
    most = asked.most_tokens
    grant = max(1, min(bounds.max_grant, bounds.context_length - len(prompt))) if most is None else most
    objection = bounds.objection(len(prompt), grant)
    if objection is not None:
        param = "messages" if most is None or most <= bounds.max_grant else "max_tokens"
        raise ApiError(400, objection, param=param, code="context_length_exceeded")
    deadline_ms = service.settings.first_token_deadline_ms
    return Job(
        name=name,
        prompt=prompt,
        output=(),
        grant=grant,
        sampling=asked.sampling(),
        stop=asked.stops,
        wants_text=True,
        deadline=None if deadline_ms is None else now + deadline_ms / 1000,
    )
