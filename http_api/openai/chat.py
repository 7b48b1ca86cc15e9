"""What a chat completion may ask for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from http_api.openai.base import CompletionFields, PositiveInt
from http_api.openai.errors import ApiError
from http_api.openai.messages import ChatMessage
from http_api.openai.tools import ResponseFormat, ToolOffered, ToolWanted
from model_runtime.core import Message


class ChatRequest(CompletionFields):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    #: The newer name of `max_tokens`.
    max_completion_tokens: PositiveInt | None = None
    response_format: Annotated[ResponseFormat, Field(discriminator="type")] | None = None
    tools: Annotated[list[ToolOffered], Field(max_length=128)] | None = None
    tool_choice: ToolWanted | None = None
    #: False: one call at most.
    parallel_tool_calls: bool | None = None

    # Accepted at the values that ask for nothing.
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    store: Literal[False] | None = None
    modalities: list[Literal["text"]] | None = None
    service_tier: Literal["auto", "default"] | None = None

    # Accepted, and without effect on the answer.
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None

    @property
    def chat(self) -> list[Message]:
        return [message.as_message() for message in self.messages]

    def most_tokens(self) -> int | None:
        """Raises ApiError where both names are given."""
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ApiError(400, "give max_tokens or max_completion_tokens, not both", param="max_tokens")
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
