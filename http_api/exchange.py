"""One request and its answer: a body under a limit, a client that may leave at any time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from http_api.openai.errors import ApiError, from_validation

ModelT = TypeVar("ModelT", bound=BaseModel)
ResultT = TypeVar("ResultT")

# What a proxy answers where the client closed the connection first; nobody reads it.
_CLIENT_GONE = 499


class ClientGoneError(Exception):
    """The client left before its answer was there."""


def to_nobody() -> Response:
    """For a client that is gone."""
    return Response(status_code=_CLIENT_GONE)


async def read_body(request: Request, shape: type[ModelT], max_bytes: int) -> ModelT:
    """The body as a `shape`. Raises ApiError, and ClientDisconnect where the client leaves while it sends."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise ApiError(413, f"the body is larger than {max_bytes} bytes")
    try:
        return shape.model_validate_json(bytes(body))
    except ValidationError as error:
        raise from_validation(error) from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """What `work` returns or raises. Cancels it and raises ClientGoneError where the client leaves before.

    The request's body must have been read."""
    made = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({made, gone}, return_when=asyncio.FIRST_COMPLETED)
        if made.done():
            return made.result()
        raise ClientGoneError
    finally:
        for task in (made, gone):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(made, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events. Calls `end` however the response ends, even if it is never begun."""

    def __init__(self, events: AsyncIterator[str], end: Callable[[], Awaitable[None] | None]) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            ending = self._end()
            if ending is not None:
                await ending
