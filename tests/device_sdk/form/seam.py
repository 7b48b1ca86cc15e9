"""A device that waits for the cloud's grant: the hand-over falls where a test wants it, on a busy machine, too."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from device_sdk import Answer, Event, Finished, HybridClient, PaceSettings, SplitSettings, Token
from model_runtime.core import Cancellation, Chunk
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer

#: Seconds; nothing here takes a hundredth of it.
PATIENCE = 20.0
#: From when the cloud has ended its part to when its last words are with the device, and more.
SETTLED = 0.03


class Seam:
    """Holds the passes over the prompt until the cloud has given what it was asked for."""

    def __init__(self, running: Any) -> None:
        self._running = running
        self._open = threading.Event()
        self._open.set()
        self.first = threading.Event()

    def phone(self, tokenizer: ScriptedTokenizer, **model: Any) -> ScriptedEngine:
        options: dict[str, Any] = {"answer_length": 10**6, **model}
        return ScriptedEngine(tokenizer=tokenizer, delay=_prompt_alone, sleep=self._hold, **options)

    def close(self) -> None:
        self.first.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def _hold(self, seconds: float, cancellation: Cancellation | None) -> bool:
        until = time.monotonic() + PATIENCE
        while seconds and time.monotonic() < until and not self._open.is_set():
            if cancellation is not None and cancellation.wait(0.001):
                return True
            if self.first.is_set() and not self._running.service.state.desk.backend.occupancy().running:
                time.sleep(SETTLED)
                break
        return cancellation is not None and cancellation.cancelled


def _prompt_alone(chunks: Sequence[Chunk]) -> float:
    return 1.0 if any(len(chunk.tokens) > 16 for chunk in chunks) else 0.0


async def answered(
    client: HybridClient, seam: Seam, grant: int, prompt: str, **options: Any
) -> tuple[list[Event], Answer]:
    """All events, and the answer, of a split in which the cloud gives `grant` tokens (or all of them) first."""
    split = SplitSettings(grant=grant, max_grant=grant, pace=PaceSettings(mode="off"), keep_ratio=None)
    seam.close()
    if grant == 0:
        seam.open()
    events: list[Event] = []
    try:
        async for event in client.stream(prompt, split=split, **options):
            events.append(event)
            if isinstance(event, Token):
                seam.first.set()
    finally:
        seam.open()
    assert isinstance(events[-1], Finished), events[-1]
    return events, events[-1].answer
