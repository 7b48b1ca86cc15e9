"""The events of one generation as OpenAI's response objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from cloud_service.desk import Turned
from cloud_service.openai_api.errors import from_failed, from_turned
from cloud_service.scheduler.jobs import Emitted, Ended, Event, Failed, Late, Refused
from cloud_service.served import Served
from http_api.openai.errors import ApiError
from http_api.openai.replies import ChatReply, FinishReason, TokenCounts, event
from model_runtime.text import TextAssembler
from model_runtime.tools.reader import CallArguments, CallBegun, CallEnded, CallReader, Part
from wire_protocol.messages import Usage

_FINISH: dict[str, FinishReason] = {
    "eos": "stop",
    "stop": "stop",
    "grant": "length",
    "context": "length",
    "stopped": "stop",
}


class Answer:
    """One chat completion. `listen` is its listener; read it once, as `whole` or as `stream`."""

    def __init__(self, model: str, *, wants_usage: bool = False) -> None:
        self._reply = ChatReply(model, wants_usage=wants_usage)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._served: Served | None = None
        #: Finds tool calls in the text; None where the model was told of no tools.
        self.calls: CallReader | None = None

    @property
    def name(self) -> str:
        """For logs."""
        return self._reply.id

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
        async for part in self._read():
            match part:
                case str():
                    text += part
                case Ended():
                    calls = self.calls.calls if self.calls else ()
                    return self._reply.whole(text, self._finish(part), _counts(part.usage), calls=calls)
                case _:
                    pass  # whole at the end
        raise AssertionError("every generation ends in a terminal event")

    async def stream(self) -> AsyncIterator[str]:
        """Server-sent events, up to `[DONE]`. A fault in mid-stream is an event of its own, and the last."""
        if first := self._reply.first():
            yield first
        try:
            async for part in self._read():
                match part:
                    case str():
                        yield self._reply.text(part)
                    case CallBegun(position, call_id, name):
                        yield self._reply.call_begun(position, call_id, name)
                    case CallArguments(position, text):
                        yield self._reply.call_arguments(position, text)
                    case CallEnded():
                        pass
                    case Ended():
                        for last in self._reply.last(self._finish(part), _counts(part.usage)):
                            yield last
        except ApiError as error:
            yield event(error.body)

    def _finish(self, ended: Ended) -> FinishReason:
        finish = _FINISH[ended.reason]
        return "tool_calls" if finish == "stop" and self.calls and self.calls.calls else finish

    async def _read(self) -> AsyncIterator[Part | Ended]:
        """Text, and calls where there may be any, then how it ended. Raises ApiError."""
        async for part in self._parts():
            if self.calls is None:
                yield part
            elif isinstance(part, str):
                for found in self.calls.push(part):
                    yield found
            else:
                for found in self.calls.end():
                    yield found
                yield part

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
                case Refused(refusal):
                    raise from_turned(refusal)
                case Failed() as failed:
                    raise from_failed(failed)


def _counts(usage: Usage) -> TokenCounts:
    return TokenCounts(usage.prompt_tokens, usage.output_tokens, usage.cached_tokens)
