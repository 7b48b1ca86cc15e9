"""What a text completion may ask for: OpenAI's older endpoint, for which a prompt is text as it stands."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from http_api.openai.base import CompletionFields

#: OpenAI's default for this endpoint.
DEFAULT_MAX_TOKENS = 16


class CompletionRequest(CompletionFields):
    """The body of `/v1/completions`."""

    prompt: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1, max_length=1)]

    # Accepted at the one value that asks for nothing.
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None

    @property
    def text(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    def most_tokens(self) -> int:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
