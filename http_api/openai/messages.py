"""The messages of a chat."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from http_api.openai.base import Strict
from model_runtime.core import Message
from model_runtime.tools.spec import ToolCall


class TextPart(Strict):
    type: Literal["text"]
    text: str


class FunctionCalled(Strict):
    name: str
    #: JSON text.
    arguments: str


class CallMade(Strict):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCalled

    def as_call(self) -> ToolCall:
        return ToolCall(self.id, self.function.name, self.function.arguments)


class ChatMessage(Strict):
    #: `developer` is what newer models call `system`.
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    #: What came with an assistant's message and is no part of the next prompt.
    reasoning_content: str | None = None
    #: What an assistant's message asked to have called.
    tool_calls: list[CallMade] | None = None
    #: Of a tool's message: which call this is the result of.
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant's message has `tool_calls`")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("a tool's message, and no other, has `tool_call_id`")
        if self.content is None and not self.tool_calls:
            raise ValueError("`content` is missing")
        return self

    def as_message(self) -> Message:
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        message = Message(role="system" if self.role == "developer" else self.role, content=text)
        if self.tool_calls:
            message["tool_calls"] = [call.as_call() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message
