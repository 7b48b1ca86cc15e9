"""What chat and text completions may ask for alike. Whatever is not named, or not at a value named, is refused."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_runtime.sampling import SamplingParams

T = TypeVar("T")
StopText = Annotated[str, Field(min_length=1, max_length=256)]
PositiveInt = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_asks_for_nothing(cls, given: Any) -> Any:
        """Clients send fields that they know and do not use, and messages as they got them, with null."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None or name in cls.model_fields}


class StreamOptions(Strict):
    include_usage: bool = False
    #: Padding against the lengths of encrypted chunks being read; there is none on loopback, nor a need for it.
    include_obfuscation: Literal[False] | None = None


class CompletionFields(Strict):
    """The fields' defaults are OpenAI's."""

    model: str
    #: The most output tokens.
    max_tokens: PositiveInt | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    #: Without one, every answer draws its own.
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    # Not OpenAI's, but vLLM's.
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None

    # Accepted at the one value that asks for nothing.
    n: Literal[1] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    # Accepted, and without effect on the answer.
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> SamplingParams:
        return SamplingParams(
            temperature=_or(self.temperature, 1.0),
            top_k=_or(self.top_k, 0),
            top_p=_or(self.top_p, 1.0),
            min_p=_or(self.min_p, 0.0),
            repetition_penalty=_or(self.repetition_penalty, 1.0),
            presence_penalty=_or(self.presence_penalty, 0.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
            seed=secrets.randbits(63) if self.seed is None else self.seed,
        )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
