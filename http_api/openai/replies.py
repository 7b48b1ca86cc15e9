"""OpenAI's response objects, as JSON and as server-sent events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model_runtime.tools.spec import ToolCall

#: The last event of a stream that ended well.
DONE = "data: [DONE]\n\n"

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """What an answer took, in tokens. `cached` of the prompt's needed no prefill, `thought` of the output's are
    thinking."""

    prompt: int
    output: int
    cached: int = 0
    thought: int = 0

    def body(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.output,
            "total_tokens": self.prompt + self.output,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.thought},
        }


class ChatReply:
    """The objects of one `/v1/chat/completions`."""

    _prefix = "chatcmpl"
    _whole = "chat.completion"
    _piece = "chat.completion.chunk"

    def __init__(self, model: str, *, wants_usage: bool = False) -> None:
        """`wants_usage`: as in `stream_options`."""
        self.id = f"{self._prefix}-{secrets.token_hex(12)}"
        self._head = {"id": self.id, "created": int(time.time()), "model": model}
        self._wants_usage = wants_usage

    def whole(
        self,
        text: str,
        finish: FinishReason,
        counts: TokenCounts,
        *,
        calls: Sequence[ToolCall] = (),
        thinking: str = "",
    ) -> dict[str, Any]:
        said = self._said(text, calls, thinking)
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return {**self._head, "object": self._whole, "choices": [choice], "usage": counts.body()}

    def first(self) -> str | None:
        """What a stream begins with, if anything."""
        return self.delta({"role": "assistant", "content": ""})

    def text(self, text: str, **beyond: Any) -> str:
        """One more piece of text; `beyond`: fields that are not OpenAI's."""
        return self.delta({"content": text}, **beyond)

    def thought(self, text: str, **beyond: Any) -> str:
        """One more piece of thinking, as DeepSeek's API and llama-server call it: OpenAI's shows none."""
        return self.delta({"reasoning_content": text}, **beyond)

    def call_begun(self, position: int, call_id: str, name: str) -> str:
        """Call `position` of the answer, counted from 0; its arguments follow."""
        call = {"index": position, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        return self.delta({"tool_calls": [call]})

    def call_arguments(self, position: int, text: str) -> str:
        """One more piece of a call's arguments."""
        return self.delta({"tool_calls": [{"index": position, "function": {"arguments": text}}]})

    def delta(self, delta: Mapping[str, Any], finish: FinishReason | None = None, **beyond: Any) -> str:
        return self._chunk({"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}, beyond)

    def last(self, finish: FinishReason, counts: TokenCounts, **beyond: Any) -> Iterable[str]:
        """Why it ended, the usage where it was asked for, `[DONE]`. The last object holds what is `beyond`."""
        if not self._wants_usage:
            yield self._end(finish, beyond)
        else:
            yield self._end(finish, {})
            yield event({**self._head, "object": self._piece, "choices": [], "usage": counts.body(), **beyond})
        yield DONE

    def _end(self, finish: FinishReason, beyond: Mapping[str, Any]) -> str:
        return self.delta({}, finish, **beyond)

    def _said(self, text: str, calls: Sequence[ToolCall], thinking: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if thinking:
            message["reasoning_content"] = thinking
        if calls:
            message["content"] = text or None
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in calls
            ]
        return {"message": message}

    def _chunk(self, choice: Mapping[str, Any], beyond: Mapping[str, Any]) -> str:
        usage = {"usage": None} if self._wants_usage else {}
        return event({**self._head, "object": self._piece, "choices": [choice], **usage, **beyond})


class TextReply(ChatReply):
    """The objects of one `/v1/completions`, which are called the same in a stream and whole."""

    _prefix = "cmpl"
    _whole = _piece = "text_completion"

    def first(self) -> str | None:
        return None

    def text(self, text: str, **beyond: Any) -> str:
        return self._chunk({"index": 0, "text": text, "logprobs": None, "finish_reason": None}, beyond)

    def _end(self, finish: FinishReason, beyond: Mapping[str, Any]) -> str:
        return self._chunk({"index": 0, "text": "", "logprobs": None, "finish_reason": finish}, beyond)

    def thought(self, text: str, **beyond: Any) -> str:
        return self.text(text, **beyond)

    def _said(self, text: str, calls: Sequence[ToolCall], thinking: str) -> dict[str, Any]:
        return {"text": thinking + text}


def event(data: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def model_list(names: Iterable[str], owner: str) -> dict[str, Any]:
    """The body of `/v1/models`."""
    return {"object": "list", "data": [model_object(name, owner) for name in names]}


def model_object(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
