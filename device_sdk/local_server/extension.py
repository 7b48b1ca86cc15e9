"""The field `pd_device` of a request: what OpenAI's API has no word for. Names and meanings are the SDK's."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from device_sdk.policies import Privacy, Situation
from device_sdk.refining import Protected
from device_sdk.settings import Mode
from http_api.openai.base import Strict
from http_api.openai.chat import ChatRequest
from http_api.openai.completions import CompletionRequest
from model_runtime.constraint import Constraint, Grammar, Regex
from speed_controller.settings import PaceSettings
from speed_controller.split import SplitSettings
from speed_controller.split_config import Bucket, Route, SplitConfig

ModeName: TypeAlias = Literal["SPLIT", "ONLY_ON_DEVICE", "PREFER_ON_DEVICE", "PREFER_IN_CLOUD", "ONLY_IN_CLOUD"]

#: The key in requests, in answers, and (with `x-` before it and a dash) the header.
KEY = "pd_device"
HEADER = "x-pd-device"


class ProtectedSpan(Strict):
    """Characters [start, stop) of the content of message `message`, which may count from the end (-1 is the last)."""

    message: int
    start: int | None = None
    stop: int | None = None


class Extension(Strict):
    """All are optional; what is left out is as the server was started with."""

    mode: ModeName | None = Field(default=None, description="who answers")
    grant: Annotated[int, Field(ge=0, le=100_000)] | None = Field(
        default=None, description="tokens that the cloud gives"
    )
    refine: bool | Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="whether the device reads only what matters of the prompt, or which share of it"
    )
    pace_ms: Annotated[float, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="preferred time between two streamed tokens; 0: each as it comes"
    )
    protect: Annotated[list[ProtectedSpan], Field(max_length=256)] = Field(
        default=[], description="parts of the prompt that the device reads in any case"
    )
    privacy: Literal["public", "private", "secret"] | None = Field(
        default=None, description="where the prompt may go: anywhere, to the cloud only in need, nowhere"
    )
    deadline_ms: Annotated[float, Field(gt=0, le=3_600_000)] | None = Field(
        default=None, description="when the first token is wanted"
    )
    regex: Annotated[str, Field(min_length=1, max_length=10_000)] | None = Field(
        default=None, description="a pattern that the whole answer matches"
    )
    grammar: Annotated[str, Field(min_length=1, max_length=100_000)] | None = Field(
        default=None, description="a context-free grammar that the answer is of (Lark, GBNF)"
    )
    events: bool = Field(default=False, description="say in each chunk of a stream who supplied it, and what happens")

    @property
    def wanted_mode(self) -> Mode | None:
        return None if self.mode is None else Mode(self.mode)

    @property
    def situation(self) -> Situation:
        return Situation(
            privacy=None if self.privacy is None else Privacy(self.privacy),
            deadline=None if self.deadline_ms is None else self.deadline_ms / 1000,
        )

    @property
    def constraint(self) -> Constraint | None:
        """What beside a JSON schema, which `response_format` has, the answer is held to."""
        if self.regex is not None:
            return Regex(self.regex)
        return None if self.grammar is None else Grammar(self.grammar)

    @model_validator(mode="after")
    def _one_constraint(self) -> Self:
        if self.regex is not None and self.grammar is not None:
            raise ValueError("give `regex` or `grammar`, not both")
        return self

    @property
    def protected(self) -> list[Protected]:
        return [Protected(one.message, one.start, one.stop) for one in self.protect]


class LocalChatRequest(ChatRequest):
    pd_device: Extension = Extension()


class LocalCompletionRequest(CompletionRequest):
    pd_device: Extension = Extension()


Split: TypeAlias = SplitSettings | SplitConfig


def moved(split: Split, *, grant: int | None, pace_ms: float | None, paced: bool) -> Split:
    """`split` with another grant and pace where they are not None; not paced at all unless `paced`. Raises
    SettingError, which names what is out of range."""
    if isinstance(split, SplitConfig):
        buckets = tuple(_bucket(one, grant, pace_ms) for one in split.buckets)
        largest = max(split.max_grant, grant or 0)
        return replace(split, buckets=buckets, max_grant=largest, pace=_pace(split.pace, None, pace_ms, paced))
    pace = _pace(split.pace, split, pace_ms, paced)
    if grant is None:
        return replace(split, pace=pace)
    return replace(split, grant=grant, max_grant=max(split.max_grant, grant), pace=pace)


def _bucket(bucket: Bucket, grant: int | None, pace_ms: float | None) -> Bucket:
    if grant is not None and bucket.route is Route.SPLIT:
        bucket = replace(bucket, grant=grant)
    return replace(bucket, pace=pace_ms / 1000) if pace_ms else bucket


def _pace(pace: PaceSettings, split: SplitSettings | None, pace_ms: float | None, paced: bool) -> PaceSettings:
    if not paced or pace_ms == 0:
        return replace(pace, mode="off")
    if pace_ms is None or split is None:
        return pace
    # As a bucket of this pace would have it: the limits move with it.
    return Bucket(None, Route.SPLIT, pace=pace_ms / 1000).settings(pace, split.max_grant).pace
