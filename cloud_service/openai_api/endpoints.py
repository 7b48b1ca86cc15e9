"""`/v1/models` and `/v1/chat/completions`."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from cloud_service.auth import Caller
from cloud_service.desk import Bounds, Desk
from cloud_service.openai_api.answer import Answer
from cloud_service.openai_api.shape import shape_of
from cloud_service.scheduler.jobs import Job
from cloud_service.service import Service, Serving
from http_api.exchange import ClientGoneError, EventStream, read_body, to_nobody, unless_gone
from http_api.openai.chat import ChatRequest
from http_api.openai.errors import ApiError
from http_api.openai.replies import model_list
from model_runtime.tools.reader import CallReader
from wire_protocol.trace_context import usable


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
        return JSONResponse(model_list([desk.model_name], "pd-cloud"))

    @router.post("/chat/completions")
    async def chat_completions(request: Request) -> Response:
        try:
            caller = _identify(service, request)
            desk = _desk(service)
            asked = await read_body(request, ChatRequest, service.settings.max_message_bytes)
            answer = Answer(desk.model_name, wants_usage=asked.wants_usage)
            traceparent = usable(request.headers.get("traceparent"))
            job, answer.calls = await _job(asked, desk, service, desk.bounds_for(caller), answer.name, traceparent)
            answer.admit(await desk.submit(caller, job, answer.listen))
            if asked.stream:
                return EventStream(answer.stream(), answer.abandon)
            try:
                return JSONResponse(await unless_gone(request, answer.whole()))
            finally:
                answer.abandon()
        except ApiError as error:
            return error.response()
        except (ClientDisconnect, ClientGoneError):
            return to_nobody()

    return router


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


async def _job(
    asked: ChatRequest, desk: Desk, service: Service, bounds: Bounds, name: str, traceparent: str
) -> tuple[Job, CallReader | None]:
    """And what finds tool calls in its answer, where the model is told of tools. Raises ApiError."""
    now = time.monotonic()
    if asked.model != desk.model_name:
        text = f"the model {asked.model[:100]!r} is not served here; {desk.model_name!r} is"
        raise ApiError(404, text, param="model", code="model_not_found")
    most = asked.most_tokens()
    shape = await asyncio.to_thread(shape_of, asked, desk.tokenizer, holds_constraints=desk.backend.holds_constraints)
    prompt = shape.prompt
    grant = max(1, min(bounds.max_grant, bounds.context_length - len(prompt))) if most is None else most
    objection = bounds.objection(len(prompt), grant)
    if objection is not None:
        param = "messages" if most is None or most <= bounds.max_grant else "max_tokens"
        raise ApiError(400, objection, param=param, code="context_length_exceeded")
    deadline_ms = service.settings.first_token_deadline_ms
    job = Job(
        name=name,
        prompt=prompt,
        output=(),
        grant=grant,
        sampling=asked.sampling(),
        stop=asked.stops,
        constraint=shape.constraint,
        wants_text=True,
        deadline=None if deadline_ms is None else now + deadline_ms / 1000,
        traceparent=traceparent,
        family=asked.prompt_cache_key or "",
    )
    return job, shape.reader()
