"""The thread that owns the device's engine. Everything that touches the engine happens here, one pass at a time.

Generations take turns pass by pass, each with one under way at most: next is who has had the least of its time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from device_sdk.errors import DeviceError
from device_sdk.generation.chunks import PASS_SECONDS, UNKNOWN_CHUNK, chunk_at
from device_sdk.generation.commands import Step
from device_sdk.generation.inputs import DeviceFailed, Input, StepDone
from device_sdk.kept import KeptKV
from device_sdk.turns import Turns
from model_runtime.core import Cancellation, Chunk, Engine, FloatArray, Logits
from model_runtime.errors import Cancelled, EngineFailedError
from model_runtime.sampling import Rule, Sampler, SamplingParams
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
        self._turns = Turns()
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
                self.engine = await self.call(lambda: source(cancellation))
                if warm_up:
                    await self.call(self._warm_up)
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
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        deliver: Callable[[Input], None],
        kept: KeptKV | None = None,
        rule: Rule | None = None,
    ) -> DeviceSession:
        """One generation's use of the engine; `deliver` is called on the current event loop. It goes on in the sequence
        of `kept`, and leaves it there. `rule`: what its tokens are held to."""
        return DeviceSession(self, prompt, sampling, deliver, kept, rule)

    async def close(self, *, shutdown_engine: bool) -> None:
        """End the thread after the pass under way; free the engine if it is ours."""
        engine = self.engine

        def last() -> None:
            if shutdown_engine and engine is not None:
                engine.shutdown()

        await self.call(last)
        self._turns.put(None)
        await asyncio.to_thread(self._thread.join, 5.0)

    @property
    def chunk(self) -> int:
        """Prompt tokens in a pass of about PASS_SECONDS."""
        block = self.engine.info.capabilities.chunk_length if self.engine is not None else None
        return block or chunk_at(self.rates.prefill_rate or UNKNOWN_CHUNK / PASS_SECONDS)

    async def unload(self, *, shutdown_engine: bool) -> None:
        """Let go of the engine, and free it if it is ours; another may be loaded."""

        def last() -> None:
            engine, self.engine = self.engine, None
            if shutdown_engine and engine is not None:
                engine.shutdown()
                self.broken = None

        await self.call(last)

    def submit(self, job: Callable[[], None], owner: DeviceSession | None = None) -> None:
        """`owner`: whose pass it is; such jobs wait for those of nobody."""
        self._turns.put(job, owner)

    def leave(self, owner: DeviceSession) -> None:
        """`owner` has no more passes."""
        self._turns.leave(owner)

    def _work(self) -> None:
        self._turns.run(self._perform)

    def _perform(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            logger.exception("a job of the engine thread failed")

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises on the engine's thread, after what was submitted before."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = function()
            except BaseException as error:
                _post(loop, _set_exception, future, error)
            else:
                _post(loop, _set_result, future, result)

        self._turns.put(job)
        return await future


class DeviceSession:
    """A generation's sequence, sampler and pass under way."""

    def __init__(
        self,
        worker: EngineWorker,
        prompt: Sequence[int],
        sampling: SamplingParams,
        deliver: Callable[[Input], None],
        kept: KeptKV | None,
        rule: Rule | None,
    ) -> None:
        self._worker = worker
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._sampler = Sampler(sampling, prompt, rule)
        self._kept = kept
        self._sequence: int | None = None
        self._cancellation = Cancellation()

    def start(self, step: Step) -> None:
        """Queue `step`; its outcome is delivered, unless it is cancelled."""
        cancellation = self._cancellation = Cancellation()
        self._worker.submit(lambda: self._run(step, cancellation), self)

    def cancel_step(self) -> None:
        self._cancellation.cancel()

    def close(self) -> None:
        """Free the sequence, or leave it where it is kept, once the pass under way has ended."""
        self._cancellation.cancel()
        self._worker.leave(self)
        self._worker.submit(self._close)

    def drop(self) -> None:
        """Free the sequence, also where it was to be kept; the next step begins a new one."""
        self._cancellation.cancel()
        self._worker.submit(self._drop)

    # --- on the engine's thread ----------------------------------------------------------------------------------

    def _drop(self) -> None:
        engine = self._worker.engine
        sequence, self._sequence = self._sequence, None
        if engine is not None and sequence is not None and self._worker.broken is None:
            engine.close(sequence)

    def _close(self) -> None:
        engine = self._worker.engine
        sequence, self._sequence = self._sequence, None
        if engine is None or sequence is None or self._worker.broken is not None:
            return
        if self._kept is not None:
            self._kept.put(engine, sequence)
        else:
            engine.close(sequence)

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
        if self._sequence is None and self._kept is not None:
            self._sequence = self._kept.take(engine)
        if self._sequence is None:
            self._sequence = engine.open()
        if engine.length(self._sequence) != step.keep:
            engine.truncate(self._sequence, step.keep)
        rows = len(step.received) + (step.sample_at is not None)
        wanted = (Logits.NONE, Logits.LAST)[rows] if rows < 2 else Logits.ALL
        begun = time.perf_counter()
        logits = engine.forward([Chunk(self._sequence, step.tokens, wanted)], cancellation)[0].logits
        # A step may begin within the prompt, where nothing is to be compared.
        agreed = self._agreed(logits[len(logits) - rows :], step)
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
