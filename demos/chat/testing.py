"""Fakes for tests of the client: answers from a script, without a model, a socket or a wait of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from demos.chat.answering.holder import Answering
from demos.chat.answering.states import SideState
from device_sdk import (
    Answer,
    Cancelled,
    Failed,
    Finished,
    HandOver,
    Mode,
    Notice,
    Progress,
    Report,
    Source,
    SourceSpan,
    Timeline,
    Token,
)
from model_runtime.core import Cancellation

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from demos.chat.answering.setup import Setup
    from demos.chat.answering.states import Side
    from device_sdk import Event, GenerationFailedError, SamplingParams, SplitSettings
    from model_runtime.core import Message


_PROMPT = 2_000


@dataclass(slots=True)
class Script:
    """One answer. Words are tokens; the first `cloud` of them come from the cloud in split mode."""

    text: str = "The gate was locked by Mira Nagy. She wrote it into the log at noon."
    cloud: int = 4
    notices: tuple[Notice, ...] = ()
    #: Raised instead of an answer.
    error: Exception | None = None
    #: Ends the answer after its last word.
    failure: Callable[[Answer], GenerationFailedError] | None = None
    #: Called before each word, with its index.
    before: Callable[[int], None] | None = None
    #: Seconds before each word.
    pace: float = 0.0
    #: Waits for this before the word of that index.
    hold_at: int | None = None
    hold: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client was asked."""

    messages: tuple[Message, ...]
    mode: Mode
    max_tokens: int
    sampling: SamplingParams
    split: SplitSettings


class ScriptedClient:
    """As much of a HybridClient as the chat uses."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.asked: list[Asked] = []
        #: Streams that were cancelled, or closed before their end.
        self.cancelled = 0

    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        max_tokens: int,
        sampling: SamplingParams,
        mode: Mode,
        split: SplitSettings,
        progress: bool,
        cancellation: Cancellation | None = None,
    ) -> AsyncGenerator[Event, None]:
        script = self.script
        self.asked.append(Asked(tuple(prompt), mode, max_tokens, sampling, split))
        if script.error is not None:
            raise script.error
        words = [word + " " for word in script.text.split(" ")]
        words[-1] = words[-1].rstrip()
        ended, stopped, loop = False, asyncio.Event(), asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(stopped.set)

        forget = (cancellation or Cancellation()).on_cancel(stop)
        try:
            for notice in script.notices:
                yield notice
            sources = _sources(mode, len(words), script.cloud)
            for index, (word, source) in enumerate(zip(words, sources, strict=True)):
                if index == script.hold_at:
                    await _first(script.hold, stopped)
                await asyncio.sleep(script.pace)
                if stopped.is_set():
                    self.cancelled += 1
                    ended, report = True, report_of(mode, sources[:index])
                    yield Cancelled(Answer("".join(words[:index]), (), replace(report, finish_reason="cancelled")))
                    return
                if script.before is not None:
                    script.before(index)
                if index and source is Source.DEVICE and sources[index - 1] is Source.CLOUD:
                    yield HandOver(index)
                if progress:
                    # The cloud is three tokens ahead; the device reads along until it takes over.
                    ahead = index + 1 if source is Source.DEVICE else min(index + 3, script.cloud)
                    yield Progress(ahead, min(_PROMPT, (index + 1) * _PROMPT // max(script.cloud, 1)), _PROMPT)
                yield Token(index, word, source, index)
            ended = True
            answer = Answer(script.text, tuple(range(len(words))), report_of(mode, sources, script))
            yield Failed(script.failure(answer)) if script.failure else Finished(answer)
        finally:
            forget()
            self.cancelled += not ended


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


class ScriptedHolder:
    """Both sides are ready at once, unless `sides` says otherwise."""

    def __init__(self, client: ScriptedClient, sides: tuple[Side, ...] = ("device", "cloud")) -> None:
        self.client = client
        self.sides = sides
        self.setups: list[Setup] = []
        self.unplugged: list[bool] = []
        self.stopped: list[Side] = []
        self.closed = False
        #: What `slower` says.
        self.lag: str | None = None
        self.tell: Callable[[SideState], None] = lambda _: None
        #: Nobody answers before it is set.
        self.opened = asyncio.Event()
        self.opened.set()

    async def open(self, setup: Setup) -> None:
        self.setups.append(setup)
        for side in ("device", "cloud"):
            ready = side in self.sides
            self.tell(SideState(side, "ready", 1.0, "scripted", emulated=True) if ready else SideState(side, "off"))

    async def answering(self) -> Answering | None:
        await self.opened.wait()
        if not self.sides:
            return None
        return Answering(self.client, "device" in self.sides, "cloud" in self.sides)

    def stop_loading(self, side: Side) -> None:
        self.stopped.append(side)

    def unplug(self, unplugged: bool) -> None:
        self.unplugged.append(unplugged)

    async def slower(self) -> str | None:
        return self.lag

    async def close(self) -> None:
        self.closed = True


def _sources(mode: Mode, words: int, cloud: int) -> list[Source]:
    given = {Mode.ONLY_ON_DEVICE: 0, Mode.PREFER_ON_DEVICE: 0, Mode.SPLIT: min(cloud, words)}.get(mode, words)
    return [Source.CLOUD] * given + [Source.DEVICE] * (words - given)


def report_of(mode: Mode, sources: Sequence[Source], script: Script | None = None) -> Report:
    """A report as a real answer's would be: first token after 0.15 s (on device 1.4 s), then one every 50 ms."""
    count, cloud = len(sources), sum(source is Source.CLOUD for source in sources)
    first = 0.15 if cloud else 1.4
    releases = tuple(first + 0.05 * index for index in range(count))
    arrivals = tuple(
        first + 0.012 * index if source is Source.CLOUD else releases[index] for index, source in enumerate(sources)
    )
    handed = cloud if 0 < cloud < count else None
    ready = releases[cloud] if handed is not None else 1.4
    progress = tuple((ready * step / 20, _PROMPT * step // 20) for step in range(1, 21)) if cloud < count else ()
    spans = [SourceSpan(Source.CLOUD, 0, cloud)] if cloud else []
    if cloud < count:
        spans.append(SourceSpan(Source.DEVICE, cloud, count))
    notices = tuple(notice.message for notice in script.notices) if script else ()
    return Report(
        mode=mode,
        finish_reason="failed" if script and script.failure else "eos",
        prompt_tokens=_PROMPT,
        spans=tuple(spans),
        ttft_ms=1000 * first,
        tpot_mean_ms=50.0,
        max_gap_ms=52.0,
        pace_ms=50.0,
        cloud_tokens=cloud,
        device_tokens=count - cloud,
        handover_index=handed,
        grant=cloud,
        cloud_busy_ms=12.0 * cloud if cloud else None,
        agreement=0.94 if handed else None,
        notices=notices,
        timeline=Timeline(arrivals, releases, progress),
    )
