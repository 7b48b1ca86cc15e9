"""The thread that owns the device's engine. Everything that touches the engine happens here, one pass at a time.

Generations take turns pass by pass (each has at most one under way), so several share the engine fairly.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from device_sdk.errors import DeviceError
from device_sdk.generation.commands import Step
from device_sdk.generation.inputs import DeviceFailed, Input, StepDone
from model_runtime.core import Cancellation, Chunk, Engine, FloatArray, Logits
from model_runtime.errors import Cancelled, EngineFailedError
from model_runtime.sampling import Sampler, SamplingParams
from speed_controller.estimates import DeviceForecast

logger = logging.getLogger(__name__)
T = TypeVar("T")

WARM_UP_TOKENS = 64
WARM_UP_DECODES = 3


@dataclass(slots=True)
class Rates:
    """The device's speed as last seen: what a new generation believes at first."""

    prefill_rate: float | None = None
    tpot: float | None = None

    def forecast(self) -> DeviceForecast:
        return DeviceForecast(prefill_rate=self.prefill_rate, tpot=self.tpot)

    def learn(self, forecast: DeviceForecast, prompt_tokens: int) -> None:
        ready = forecast.ready_in(prompt_tokens) if prompt_tokens else None
        if ready:
            self.prefill_rate = prompt_tokens / ready
        self.tpot = forecast.tpot or self.tpot


class EngineWorker:
    """Owns a thread and, while it runs, an engine. Methods are called on the event loop's thread."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.rates = Rates()
        #: Why the engine is not to be used; None while it is fine.
        self.broken: str | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="pd-device-engine", daemon=True)
        self._thread.start()

    async def load(
        self,
        source: Callable[[Cancellation], Engine],
        *,
        within: float,
        warm_up: bool = True,
    ) -> Engine:
        """Run `source` on the thread and keep its engine. `within` in seconds. Raises DeviceError; a cancelled await
        cancels the load."""
        cancellation = Cancellation()
        try:
            async with asyncio.timeout(within):
                self.engine = await self._call(lambda: source(cancellation))
                if warm_up:
                    await self._call(self._warm_up)
        except TimeoutError:
            cancellation.cancel()
            raise DeviceError(f"the device's model was not loaded within {within:g} s; raise Timeouts.load") from None
        except asyncio.CancelledError:
            cancellation.cancel()
            raise
        except Exception as error:
            raise DeviceError(f"the device's model cannot be used: {error}") from error
        return self.engine

    def _warm_up(self) -> None:
        """The first pass of most engines is slow; and the speed must be known before the first grant is asked."""
        engine = self.engine
        assert engine is not None  # noqa: S101 - set by load
        count = min(
            engine.info.capabilities.chunk_length or WARM_UP_TOKENS,
            max(engine.info.context_length - WARM_UP_DECODES - 1, 1),
        )
        tokens = [index % engine.info.vocabulary_size for index in range(count)]
        forecast = DeviceForecast()
        for _ in range(2):
            sequence = engine.open()
            try:
                begun = time.perf_counter()
                engine.forward([Chunk(sequence, tokens)])
                forecast.observe_prefill(count, time.perf_counter() - begun)
                for token in tokens[:WARM_UP_DECODES]:
                    begun = time.perf_counter()
                    engine.forward([Chunk(sequence, [token])])
                    forecast.observe_decode(time.perf_counter() - begun)
            finally:
                engine.close(sequence)
        self.rates.learn(forecast, count)

    def session(
        self, prompt: Sequence[int], sampling: SamplingParams, deliver: Callable[[Input], None]
    ) -> DeviceSession:
        """One generation's use of the engine; `deliver` is called on the current event loop."""
        return DeviceSession(self, prompt, sampling, deliver)

    async def close(self, *, shutdown_engine: bool) -> None:
        """End the thread after the pass under way; free the engine if it is ours."""
        engine = self.engine

        def last() -> None:
            if shutdown_engine and engine is not None:
                engine.shutdown()

        await self._call(last)
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, 5.0)

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                logger.exception("a job of the engine thread failed")

    async def _call(self, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = function()
            except BaseException as error:
                _post(loop, _set_exception, future, error)
            else:
                _post(loop, _set_result, future, result)

        self._jobs.put(job)
        return await future


class DeviceSession:
    """A generation's sequence, sampler and pass under way."""

    def __init__(
        self, worker: EngineWorker, prompt: Sequence[int], sampling: SamplingParams, deliver: Callable[[Input], None]
    ) -> None:
        self._worker = worker
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._sampler = Sampler(sampling, prompt)
        self._sequence: int | None = None
        self._cancellation = Cancellation()

    def start(self, step: Step) -> None:
        """Queue `step`; its outcome is delivered, unless it is cancelled."""
        cancellation = self._cancellation = Cancellation()
        self._worker.submit(lambda: self._run(step, cancellation))

    def cancel_step(self) -> None:
        self._cancellation.cancel()

    def close(self) -> None:
        """Free the sequence once the pass under way has ended."""
        self._cancellation.cancel()
        self._worker.submit(self._close)

    # --- on the engine's thread ----------------------------------------------------------------------------------

    def _close(self) -> None:
        engine = self._worker.engine
        if engine is not None and self._sequence is not None and self._worker.broken is None:
            engine.close(self._sequence)
        self._sequence = None

    def _run(self, step: Step, cancellation: Cancellation) -> None:
        if cancellation.cancelled:
            return
        outcome: Input
        try:
            outcome = self._pass(step, cancellation)
        except Cancelled:
            return
        except EngineFailedError as error:
            self._worker.broken = str(error)
            outcome = DeviceFailed(str(error))
        except Exception as error:
            logger.exception("a pass of the device's engine failed")
            outcome = DeviceFailed(f"{type(error).__name__}: {error}")
        _post(self._loop, self._deliver, outcome)

    def _pass(self, step: Step, cancellation: Cancellation) -> StepDone:
        engine = self._worker.engine
        if engine is None or self._worker.broken is not None:
            raise EngineFailedError(self._worker.broken or "no engine is loaded")
        if self._sequence is None:
            self._sequence = engine.open()
        if engine.length(self._sequence) != step.keep:
            engine.truncate(self._sequence, step.keep)
        rows = len(step.received) + (step.sample_at is not None)
        wanted = (Logits.NONE, Logits.LAST)[rows] if rows < 2 else Logits.ALL
        begun = time.perf_counter()
        logits = engine.forward([Chunk(self._sequence, step.tokens, wanted)], cancellation)[0].logits
        agreed = self._agreed(logits, step)
        sampled = None if step.sample_at is None else self._sampler.sample(logits[-1], step.output)
        return StepDone(step.number, agreed, sampled, time.perf_counter() - begun)

    def _agreed(self, logits: FloatArray, step: Step) -> tuple[bool, ...]:
        """Whether the device would have said each received token itself."""
        return tuple(
            self._sampler.sample(row, step.output[:position]) == token
            for position, (row, token) in enumerate(zip(logits, step.received, strict=False), step.first_received)
        )


def _post(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    """Call on the loop's thread; a loop that is closed has nobody left to tell."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        logger.debug("the event loop is closed; an outcome of the engine thread is dropped")


def _set_result(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[object], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
