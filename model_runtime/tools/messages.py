"""Chat messages as chat templates read them: OpenAI's shape, but arguments as an object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_runtime.core import Message
    from model_runtime.tools.spec import ToolCall


def speaks_of_tools(messages: Sequence[Message]) -> bool:
    """Whether calls or their results are among the messages."""
    return any(message["role"] == "tool" or message.get("tool_calls") for message in messages)


def as_template_sees_them(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A result also gets the name of what was called, which some templates write."""
    names = {call.id: call.name for message in messages for call in message.get("tool_calls", ())}
    seen = []
    for message in messages:
        one: dict[str, Any] = {"role": message["role"], "content": message["content"]}
        if calls := message.get("tool_calls"):
            one["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments_of(call)}}
                for call in calls
            ]
        if (call_id := message.get("tool_call_id")) is not None:
            one |= {"tool_call_id": call_id, "name": names.get(call_id, "")}
        seen.append(one)
    return seen


def arguments_of(call: ToolCall) -> Any:
    """An object, or the text as it is where the model wrote no JSON."""
    try:
        return json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
