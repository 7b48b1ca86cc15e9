"""The events of one generation as OpenAI's response objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from device_sdk.events import Cancelled, Event, Failed, Finished, HandOver, Notice, Refined, Thought, Token
from device_sdk.local_server.errors import EXPECTED, from_sdk
from device_sdk.local_server.extension import KEY
from device_sdk.local_server.reporting import report_body
from device_sdk.local_server.service import shutting_down
from device_sdk.report import Answer as SdkAnswer
from device_sdk.report import Report
from http_api.openai.errors import ApiError
from http_api.openai.replies import ChatReply, FinishReason, TokenCounts, event
from model_runtime.core import Cancellation
from model_runtime.tools import ToolCall
from model_runtime.tools.reader import CallArguments, CallBegun, CallEnded


class Answer:
    """One answer under way, or about to be. Read it once, as `whole` or, after `begin`, as `stream`; `close` it."""

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        reply: ChatReply,
        *,
        prompt_name: str,
        tells_events: bool,
        ended: Callable[[], None],
        one_call: Cancellation | None = None,
    ) -> None:
        """`prompt_name`: the parameter that holds the prompt; `ended` is called once nothing runs any more. `one_call`
        ends the generation, which it must have been given, after its first tool call."""
        self._events = events
        self._reply = reply
        self._prompt_name = prompt_name
        self._tells_events = tells_events
        self._ended = ended
        self._one_call = one_call
        self._first: Event | None = None

    async def close(self) -> None:
        """Ends the generation if it runs. Harmless twice."""
        await self._events.aclose()
        self._ended()

    async def begin(self) -> None:
        """Wait for the first event, until which an error still has a status of its own. Raises ApiError."""
        self._first = await self._next()
        if isinstance(self._first, Failed | Cancelled):
            raise self._failure(self._first)

    async def whole(self) -> tuple[dict[str, Any], Report]:
        """The response object and the report in it. Raises ApiError."""
        text = thinking = ""
        while True:
            match await self._next():
                case Token(text=more):
                    text += more
                case Thought(text=more):
                    thinking += more
                case CallEnded():
                    self._end_after_a_call()
                case Finished() | Failed() | Cancelled() as end:
                    answer = self._answer_of(end)
                    report, calls = answer.report, self._calls(answer)
                    counts = counts_of(report)
                    body = self._reply.whole(text, finish_of(answer), counts, calls=calls, thinking=thinking)
                    return {**body, KEY: report_body(report)}, report
                case _:
                    pass

    async def stream(self) -> AsyncIterator[str]:
        """Server-sent events, up to `[DONE]`. A fault in mid-stream is an event of its own, and the last."""
        if first := self._reply.first():
            yield first
        try:
            while True:
                match self._first or await self._next():
                    case Finished() | Failed() | Cancelled() as end:
                        answer = self._answer_of(end)
                        report = {KEY: report_body(answer.report)}
                        for last in self._reply.last(finish_of(answer), counts_of(answer.report), **report):
                            yield last
                        return
                    case Token(text=text) as token if text:
                        yield self._reply.text(text, **self._told(token))
                    case Thought(text=text) as thought if text:
                        yield self._reply.thought(text, **self._told(thought))
                    case CallBegun(position=position, id=call_id, name=name) if self._is_wanted(position):
                        yield self._reply.call_begun(position, call_id, name)
                    case CallArguments(position=position, text=text) if self._is_wanted(position):
                        yield self._reply.call_arguments(position, text)
                    case CallEnded():
                        self._end_after_a_call()
                    case other if told := self._told(other):
                        yield self._reply.text("", **told)
                self._first = None
        except ApiError as error:
            yield event(error.body)

    def _end_after_a_call(self) -> None:
        if self._one_call is not None:
            self._one_call.cancel()

    def _is_wanted(self, position: int) -> bool:
        return self._one_call is None or position == 0

    def _calls(self, answer: SdkAnswer) -> tuple[ToolCall, ...]:
        return answer.tool_calls if self._one_call is None else answer.tool_calls[:1]

    def _answer_of(self, end: Finished | Failed | Cancelled) -> SdkAnswer:
        """Raises ApiError where it is no answer."""
        if isinstance(end, Finished):
            return end.answer
        if isinstance(end, Cancelled) and self._one_call is not None and self._one_call.cancelled:
            return end.answer
        raise self._failure(end)

    async def _next(self) -> Event:
        try:
            return await anext(self._events)
        except EXPECTED as error:
            raise from_sdk(error, prompt=self._prompt_name) from None

    def _failure(self, end: Failed | Cancelled) -> ApiError:
        """With the report, so that nobody has to guess who failed."""
        if isinstance(end, Cancelled):
            error, report = shutting_down(), end.answer.report
        else:
            error, report = from_sdk(end.error, prompt=self._prompt_name), end.error.answer.report
        error.body[KEY] = report_body(report)
        return error

    def _told(self, what: Event) -> dict[str, Any]:
        """What a chunk says of it, if it was asked to."""
        if not self._tells_events:
            return {}
        match what:
            case Token(index=index, source=source) | Thought(index=index, source=source):
                return {KEY: {"event": "token", "index": index, "source": source.value}}
            case HandOver(index=index):
                return {KEY: {"event": "hand_over", "index": index}}
            case Refined(stage=stage, final=final, kept=kept):
                return {KEY: {"event": "refined", "stage": stage, "final": final, "kept": round(kept, 3)}}
            case Notice(kind=kind, message=message):
                return {KEY: {"event": "notice", "kind": kind, "message": message}}
            case _:
                return {}


def finish_of(answer: SdkAnswer) -> FinishReason:
    if answer.report.finish_reason == "length":
        return "length"
    return "tool_calls" if answer.tool_calls else "stop"


def counts_of(report: Report) -> TokenCounts:
    return TokenCounts(
        report.prompt_tokens, report.cloud_tokens + report.device_tokens, report.reused_tokens, report.thinking_tokens
    )
