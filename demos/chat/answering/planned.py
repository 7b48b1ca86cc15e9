"""What a split configuration says about a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from device_sdk import Mode
from speed_controller.errors import SplitFileError
from speed_controller.plan_file import read_split_config
from speed_controller.split_config import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_sdk import SplitSettings
    from model_runtime.core import Message
    from speed_controller.split_config import SplitConfig

#: Of English text, roughly: for a prompt that no tokenizer here can count.
CHARACTERS_PER_TOKEN = 4
_MODES = {Route.DEVICE: Mode.PREFER_ON_DEVICE, Route.SPLIT: Mode.SPLIT, Route.CLOUD: Mode.PREFER_IN_CLOUD}


def read_plan(path: str) -> SplitConfig:
    """Blocks while it reads. Raises SplitFileError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SplitFileError(f"the split configuration {path} cannot be read: {error}") from None
    return read_split_config(text)


def plan_for(config: SplitConfig, tokens: int, split: SplitSettings) -> tuple[Mode, SplitSettings, str]:
    """Who answers a prompt of `tokens` tokens, how, and why in words."""
    bucket = config.bucket(tokens)
    upto = "longer prompts" if bucket.up_to is None else f"prompts of up to {bucket.up_to:,} tokens"
    who = {Route.DEVICE: "the device answers", Route.SPLIT: "the answer is split", Route.CLOUD: "the cloud answers"}
    reason = f"By the split configuration: {who[bucket.route]} {upto} ({tokens:,} here)"
    return _MODES[bucket.route], bucket.settings(split.pace, config.max_grant), reason


def characters(messages: Sequence[Message]) -> int:
    return sum(len(message["content"]) for message in messages)
