"""Conversations under test: engines that cost nothing, and what they were made to read."""

from __future__ import annotations

from device_sdk import SplitSettings
from model_runtime.testing import ScriptedEngine
from speed_controller.settings import PaceSettings
from tests.cloud_service.conftest import serve, until_condition
from tests.device_sdk.conftest import alone

__all__ = ["alone", "serve", "until_condition"]

UNPACED = SplitSettings(pace=PaceSettings(mode="off"))
SYSTEM = "You keep the log of the north gate, the pump and the café at 東京. " * 6


def reads(engine: ScriptedEngine, since: int = 0) -> list[int]:
    """Tokens of each pass from number `since` on that read more than one."""
    return [size for chunks in engine.passes[since:] for chunk in chunks if (size := len(chunk.tokens)) > 1]
