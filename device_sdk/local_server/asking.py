"""From a request to a generation of the client's. What is asked begins when the answer is read."""

from __future__ import annotations

from typing import Any

from device_sdk.local_server.answer import Answer
from device_sdk.local_server.errors import EXPECTED, from_sdk
from device_sdk.local_server.extension import LocalChatRequest, LocalCompletionRequest, moved
from device_sdk.local_server.service import LocalService
from device_sdk.raw import RawPrompt
from http_api.openai.errors import ApiError
from http_api.openai.replies import ChatReply, TextReply
from http_api.openai.tools import TextFormat, choice_of, constraint_of
from model_runtime.constraint import Constraint
from model_runtime.core import Cancellation
from model_runtime.errors import BadInputError
from model_runtime.tools import Tool, ToolChoice
from model_runtime.tools.forcing import offered

#: What OpenAI's clients know the prompt by.
_MESSAGES, _PROMPT = "messages", "prompt"


def ask_chat(service: LocalService, asked: LocalChatRequest) -> Answer:
    """Raises ApiError."""
    tools = _tools(asked)
    one_call = Cancellation() if tools and asked.parallel_tool_calls is False else None
    how = {
        **_common(service, asked, _MESSAGES),
        "max_tokens": asked.most_tokens(),
        "response_format": _format(asked),
        "tools": tools,
        "tool_choice": _choice(asked, tools),
        "cancellation": one_call,
    }
    reply = ChatReply(asked.model, wants_usage=asked.wants_usage)
    give_back = service.take_place()
    return Answer(
        service.client.stream(asked.chat, **how),
        reply,
        prompt_name=_MESSAGES,
        tells_events=asked.pd_device.events,
        ended=give_back,
        one_call=one_call,
    )


def ask_text(service: LocalService, asked: LocalCompletionRequest) -> Answer:
    """Raises ApiError."""
    how = {
        **_common(service, asked, _PROMPT),
        "max_tokens": asked.most_tokens(),
        "response_format": asked.pd_device.constraint,
    }
    reply = TextReply(asked.model, wants_usage=asked.wants_usage)
    give_back = service.take_place()
    return Answer(
        service.client.stream(RawPrompt(asked.text), **how),
        reply,
        prompt_name=_PROMPT,
        tells_events=asked.pd_device.events,
        ended=give_back,
    )


def _common(
    service: LocalService, asked: LocalChatRequest | LocalCompletionRequest, prompt_name: str
) -> dict[str, Any]:
    """What both endpoints say to `HybridClient.stream`. Raises ApiError."""
    how = asked.pd_device
    try:
        # An answer that is read as a whole has nobody who watches it come.
        split = moved(service.client.split, grant=how.grant, pace_ms=how.pace_ms, paced=bool(asked.stream))
    except EXPECTED as error:
        raise from_sdk(error, prompt=prompt_name) from None
    return {
        "sampling": asked.sampling(),
        "stop": asked.stops,
        "mode": how.wanted_mode,
        "split": split,
        "refine": how.refine,
        "protect": how.protected,
        "situation": how.situation,
    }


def _tools(asked: LocalChatRequest) -> list[Tool]:
    try:
        return [tool.as_tool() for tool in asked.tools or ()]
    except BadInputError as error:
        raise ApiError(400, str(error), param="tools", code="invalid_value") from None


def _choice(asked: LocalChatRequest, tools: list[Tool]) -> ToolChoice:
    choice = choice_of(asked.tool_choice)
    try:
        offered(tools, choice)
    except BadInputError as error:
        raise ApiError(400, str(error), param="tool_choice", code="invalid_value") from None
    return choice


def _format(asked: LocalChatRequest) -> Constraint | None:
    beyond = asked.pd_device.constraint
    if beyond is not None and not isinstance(asked.response_format, TextFormat | None):
        raise ApiError(400, "give response_format or a constraint in pd_device, not both", param="response_format")
    try:
        return constraint_of(asked.response_format) if beyond is None else beyond
    except BadInputError as error:
        raise ApiError(400, str(error), param="response_format", code="invalid_value") from None
