"""What a split configuration (`pd-plan solve`) says about one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from device_sdk.errors import ConfigurationError
from device_sdk.settings import Mode
from speed_controller.errors import SplitFileError
from speed_controller.plan_file import read_split_config
from speed_controller.split import SplitSettings
from speed_controller.split_config import Route, SplitConfig

#: Settings for every prompt, or a configuration with settings by the prompt's length: read already, or its file.
Split: TypeAlias = SplitSettings | SplitConfig | str | Path

MODES = {Route.DEVICE: Mode.PREFER_ON_DEVICE, Route.SPLIT: Mode.SPLIT, Route.CLOUD: Mode.PREFER_IN_CLOUD}


def read_split(split: Split) -> SplitSettings | SplitConfig:
    """The configuration where `split` is its file's path. Raises ConfigurationError."""
    if not isinstance(split, str | Path):
        return split
    try:
        return read_split_config(Path(split).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the split configuration {split}: {error.strerror}") from None
    except SplitFileError as error:
        raise ConfigurationError(f"{split}: {error}") from None
