"""The events of one generation as OpenAI's response objects."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from cloud_service.desk import Served, Turned
from cloud_service.openai_api.errors import ApiError, from_failed, from_turned
from cloud_service.scheduler.jobs import Emitted, Ended, Event, Failed, Late
from model_runtime.text import TextAssembler
from wire_protocol.messages import Usage

_FINISH = {"eos": "stop", "stop": "stop", "grant": "length", "context": "length", "stopped": "stop"}


class Answer:
    """One chat completion. `listen` is its listener; read it once, as `whole` or as `stream`."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._served: Served | None = None

    @property
    def name(self) -> str:
        """For logs."""
        return str(self._head["id"])

    def listen(self, event: Event) -> None:
        self._events.put_nowait(event)

    def admit(self, served: Served | Turned) -> None:
        """Raises ApiError where it was not admitted."""
        if isinstance(served, Turned):
            raise from_turned(served)
        self._served = served

    def abandon(self) -> None:
        """The client is gone, or has everything."""
        if self._served is not None:
            self._served.abandon()

    async def whole(self) -> dict[str, Any]:
        """The `chat.completion`. Raises ApiError."""
        text = ""
        async for part in self._parts():
            if isinstance(part, str):
                text += part
            else:
                message = {"role": "assistant", "content": text, "refusal": None}
                choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[part.reason]}
                return {**self._head, "object": "chat.completion", "choices": [choice], "usage": _usage(part.usage)}
        raise AssertionError("every generation ends in a terminal event")

    async def stream(self, *, wants_usage: bool) -> AsyncIterator[str]:
        """Server-sent events, up to `[DONE]`. A fault in mid-stream is an event of its own, and the last."""
        yield self._chunk({"role": "assistant", "content": ""}, None, wants_usage)
        try:
            async for part in self._parts():
                if isinstance(part, str):
                    yield self._chunk({"content": part}, None, wants_usage)
                    continue
                yield self._chunk({}, _FINISH[part.reason], wants_usage)
                if wants_usage:
                    last = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(part.usage)}
                    yield _event({**self._head, **last})
        except ApiError as error:
            yield _event(error.body)
            return
        yield "data: [DONE]\n\n"

    async def _parts(self) -> AsyncIterator[str | Ended]:
        """Text as it becomes whole characters, then how it ended. Raises ApiError."""
        assembler = TextAssembler()
        while True:
            match await self._events.get():
                case Emitted(_, _, data):
                    text = assembler.push(data)
                    if text:
                        yield text
                case Ended() as ended:
                    rest = assembler.flush()
                    if rest:
                        yield rest
                    yield ended
                    return
                case Late():
                    raise ApiError(
                        503, "the first token would have come too late", kind="server_error", code="deadline"
                    )
                case Failed() as failed:
                    raise from_failed(failed)

    def _chunk(self, delta: dict[str, str], finish_reason: str | None, wants_usage: bool) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if wants_usage else {}
        return _event({**self._head, "object": "chat.completion.chunk", "choices": [choice], **usage})


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
