"""The stage that is open now, and those who wait for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from demos.chat.answering.stage import Stage
from demos.chat.answering.states import SideState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from demos.chat.answering.setup import Setup
    from demos.chat.answering.states import Side
    from device_sdk import Event, Mode, SamplingParams, SplitSettings
    from model_runtime.core import Cancellation, Message


class Answerer(Protocol):
    """What of a HybridClient is used here."""

    def stream(
        self,
        prompt: Sequence[Message],
        *,
        max_tokens: int,
        sampling: SamplingParams,
        mode: Mode,
        split: SplitSettings,
        progress: bool,
        cancellation: Cancellation | None,
    ) -> AsyncGenerator[Event, None]: ...


@dataclass(frozen=True, slots=True)
class Answering:
    """Who can answer now."""

    client: Answerer
    device: bool
    cloud: bool
    #: Tokens of a prompt, by the device's tokenizer; None without a device.
    count: Callable[[Sequence[Message]], int] | None = None


class StageHolder:
    """Belongs to one event loop. `tell` is called from any thread."""

    def __init__(self, tell: Callable[[SideState], None], make: Callable[..., Stage] = Stage) -> None:
        self._tell = tell
        self._make = make
        self._stage: Stage | None = None
        self._opening: asyncio.Task[None] | None = None
        self._states: dict[Side, SideState] = {}
        self._turn = asyncio.Lock()

    async def open(self, setup: Setup) -> None:
        """Close what is open, then open `setup`. Called again meanwhile, the later call has its way."""
        if self._stage is not None and self._opening is not None and not self._opening.done():
            self._stage.stop_loading("device")
            self._stage.stop_loading("cloud")
        async with self._turn:
            await self._close()
            stage = self._stage = self._make(setup, self._note)
            self._opening = asyncio.create_task(stage.open())
            await asyncio.shield(self._opening)

    async def answering(self) -> Answering | None:
        """Waits until the sides are there, or failed. None: neither is."""
        while self._opening is None or not self._opening.done():
            if self._opening is None:
                await asyncio.sleep(0.02)
            else:
                await asyncio.wait([self._opening])
        stage = self._stage
        if stage is None or stage.client is None:
            return None
        ready = {side for side, state in self._states.items() if state.phase == "ready"}
        return Answering(stage.client, "device" in ready, "cloud" in ready, stage.count)

    def stop_loading(self, side: Side) -> None:
        if self._stage is not None:
            self._stage.stop_loading(side)

    def unplug(self, unplugged: bool) -> None:
        if self._stage is not None:
            self._stage.unplug(unplugged)

    async def slower(self) -> str | None:
        """As `Stage.slower`."""
        return None if self._stage is None else self._stage.slower()

    @property
    def stage(self) -> Stage | None:
        return self._stage

    async def close(self) -> None:
        async with self._turn:
            await self._close()

    async def _close(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            await stage.close()

    def _note(self, state: SideState) -> None:
        self._states[state.side] = state
        self._tell(state)
