"""What a turn may be asked with: the options of `HybridClient.stream`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from device_sdk.pausing import PauseSwitch
from device_sdk.planned import Split
from device_sdk.policies.situation import Situation
from device_sdk.refining import Protected
from device_sdk.settings import Mode
from model_runtime.constraint import Constraint
from model_runtime.core import Cancellation
from model_runtime.sampling import SamplingParams
from model_runtime.tools.spec import Tool, ToolChoice


class TurnOptions(TypedDict, total=False):
    """As in `HybridClient.stream`, which has their meaning and their defaults."""

    max_tokens: int | None
    sampling: SamplingParams | None
    stop: Iterable[str]
    mode: Mode | None
    split: Split | None
    refine: bool | float | None
    protect: Iterable[Protected]
    response_format: Constraint | None
    tools: Iterable[Tool]
    tool_choice: ToolChoice
    progress: bool
    cancellation: Cancellation | None
    situation: Situation | None
    pause: PauseSwitch | None
    traceparent: str
