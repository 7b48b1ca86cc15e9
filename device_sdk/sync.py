"""The sync twin of HybridClient: the same client on an event loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from device_sdk.client import DEFAULT_MAX_TOKENS, HybridClient, Loader
from device_sdk.errors import ConfigurationError
from device_sdk.events import Event
from device_sdk.pausing import PauseSwitch
from device_sdk.planned import Split
from device_sdk.policies.daily import DailyCap
from device_sdk.policies.decision import Policy
from device_sdk.policies.situation import Situation
from device_sdk.raw import RawPrompt
from device_sdk.refining import Protected
from device_sdk.report import Answer
from device_sdk.settings import Mode, Timeouts
from device_sdk.telemetry.tracing import Tracing
from model_runtime.constraint import Constraint
from model_runtime.core import Cancellation, Engine, Message
from model_runtime.loading import LoadProgress
from model_runtime.sampling import SamplingParams
from model_runtime.tools.spec import Tool, ToolChoice

T = TypeVar("T")


class SyncHybridClient:
    """As HybridClient, for code without an event loop; use as `with`. Safe to call from several threads."""

    def __init__(
        self,
        *,
        device: Engine | Loader | str | Path | None = None,
        cloud: str | None = None,
        api_key: str | None = None,
        cloud_model: str = "",
        mode: Mode = Mode.SPLIT,
        split: Split | None = None,
        timeouts: Timeouts | None = None,
        on_load: Callable[[LoadProgress], None] | None = None,
        tracing: Tracing | None = None,
        policy: Policy | None = None,
        situation: Callable[[], Situation] | None = None,
        daily_cap: DailyCap | None = None,
    ) -> None:
        #: The client itself, to be used on its event loop only.
        self.client = HybridClient(
            device=device,
            cloud=cloud,
            api_key=api_key,
            cloud_model=cloud_model,
            mode=mode,
            split=split,
            timeouts=timeouts,
            on_load=on_load,
            tracing=tracing,
            policy=policy,
            situation=situation,
            daily_cap=daily_cap,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="pd-device-client", daemon=True)
        self._thread.start()
        try:
            self.run(self.client.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """As HybridClient.close. Idempotent."""
        if self._loop is not None:
            try:
                self.run(self.client.close())
            finally:
                self._end()

    def generate(
        self,
        prompt: str | Sequence[Message] | RawPrompt,
        *,
        max_tokens: int | None = DEFAULT_MAX_TOKENS,
        sampling: SamplingParams | None = None,
        stop: Iterable[str] = (),
        mode: Mode | None = None,
        split: Split | None = None,
        refine: bool | float | None = None,
        protect: Iterable[Protected] = (),
        response_format: Constraint | None = None,
        tools: Iterable[Tool] = (),
        tool_choice: ToolChoice = "auto",
        situation: Situation | None = None,
        pause: PauseSwitch | None = None,
        traceparent: str = "",
    ) -> Answer:
        """As HybridClient.generate; a KeyboardInterrupt cancels the generation."""
        return self.run(
            self.client.generate(
                prompt,
                max_tokens=max_tokens,
                sampling=sampling,
                stop=stop,
                mode=mode,
                split=split,
                refine=refine,
                protect=protect,
                response_format=response_format,
                tools=tools,
                tool_choice=tool_choice,
                situation=situation,
                pause=pause,
                traceparent=traceparent,
            )
        )

    def stream(
        self,
        prompt: str | Sequence[Message] | RawPrompt,
        *,
        max_tokens: int | None = DEFAULT_MAX_TOKENS,
        sampling: SamplingParams | None = None,
        stop: Iterable[str] = (),
        mode: Mode | None = None,
        split: Split | None = None,
        refine: bool | float | None = None,
        protect: Iterable[Protected] = (),
        response_format: Constraint | None = None,
        tools: Iterable[Tool] = (),
        tool_choice: ToolChoice = "auto",
        progress: bool = False,
        cancellation: Cancellation | None = None,
        situation: Situation | None = None,
        pause: PauseSwitch | None = None,
        traceparent: str = "",
    ) -> Generator[Event, None, None]:
        """As HybridClient.stream; closing the generator cancels the generation."""
        events = self.client.stream(
            prompt,
            max_tokens=max_tokens,
            sampling=sampling,
            stop=stop,
            mode=mode,
            split=split,
            refine=refine,
            protect=protect,
            response_format=response_format,
            tools=tools,
            tool_choice=tool_choice,
            progress=progress,
            cancellation=cancellation,
            situation=situation,
            pause=pause,
            traceparent=traceparent,
        )
        return self.events(events)

    def events(self, events: AsyncGenerator[Event, None]) -> Generator[Event, None, None]:
        """The events one by one; closing the generator closes `events`."""
        try:
            while True:
                try:
                    yield self.run(anext(events))
                except StopAsyncIteration:
                    return
        finally:
            self.run(events.aclose())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises on the client's event loop; a KeyboardInterrupt cancels it."""
        if self._loop is None:
            work.close()
            raise ConfigurationError("the client is not open; use it as `with SyncHybridClient(…) as client`")
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(_awaited(work), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _awaited(work: Coroutine[Any, Any, T]) -> T:
    return await work
