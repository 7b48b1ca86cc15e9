"""Engines whose answers do not end by themselves."""

from __future__ import annotations

from typing import Any

from model_runtime.testing import ScriptedEngine


def talkative(**options: Any) -> ScriptedEngine:
    """As what `serve` serves by default."""
    return ScriptedEngine(answer_length=100_000, **options)


def slow_engine(**options: Any) -> ScriptedEngine:
    """One whose passes take a moment, so that there is something to interrupt: 4,000 tokens take 20 seconds."""
    return talkative(delay=lambda chunks: 0.005, **options)
