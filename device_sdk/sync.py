"""The sync twin of HybridClient: the same client on an event loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from device_sdk.client import DEFAULT_MAX_TOKENS, HybridClient
from device_sdk.errors import ConfigurationError
from device_sdk.events import Event
from device_sdk.report import Answer
from device_sdk.settings import Mode, Timeouts
from model_runtime.core import Engine, Message
from model_runtime.loading import LoadProgress
from model_runtime.sampling import SamplingParams
from speed_controller.split import SplitSettings

T = TypeVar("T")


class SyncHybridClient:
    """As HybridClient, for code without an event loop; use as `with`. Safe to call from several threads."""

    def __init__(
        self,
        *,
        device: Engine | str | Path | None = None,
        cloud: str | None = None,
        api_key: str | None = None,
        cloud_model: str = "",
        mode: Mode = Mode.SPLIT,
        split: SplitSettings | None = None,
        timeouts: Timeouts | None = None,
        on_load: Callable[[LoadProgress], None] | None = None,
    ) -> None:
        self._client = HybridClient(
            device=device,
            cloud=cloud,
            api_key=api_key,
            cloud_model=cloud_model,
            mode=mode,
            split=split,
            timeouts=timeouts,
            on_load=on_load,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="pd-device-client", daemon=True)
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
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
                self._run(self._client.close())
            finally:
                self._end()

    def generate(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        sampling: SamplingParams | None = None,
        stop: Iterable[str] = (),
        mode: Mode | None = None,
        split: SplitSettings | None = None,
    ) -> Answer:
        """As HybridClient.generate; a KeyboardInterrupt cancels the generation."""
        return self._run(
            self._client.generate(prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, mode=mode, split=split)
        )

    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        sampling: SamplingParams | None = None,
        stop: Iterable[str] = (),
        mode: Mode | None = None,
        split: SplitSettings | None = None,
    ) -> Generator[Event, None, None]:
        """As HybridClient.stream; closing the generator cancels the generation."""
        events = self._client.stream(
            prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, mode=mode, split=split
        )
        try:
            while True:
                try:
                    yield self._run(anext(events))
                except StopAsyncIteration:
                    return
        finally:
            self._run(events.aclose())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
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
