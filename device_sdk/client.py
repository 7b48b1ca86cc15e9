"""The client: models in, questions in, answers out."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self

from device_sdk.courier import Courier, Question
from device_sdk.driver import GenerationDriver
from device_sdk.engine_worker import EngineWorker
from device_sdk.errors import ConfigurationError, DeviceError, GenerationCancelled, PromptTooLongError
from device_sdk.events import Cancelled, Event, Failed, Finished
from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES, Patience, Request, Sides, Use
from device_sdk.link import Address, CloudLink
from device_sdk.report import Answer
from device_sdk.settings import Mode, Timeouts
from model_runtime.core import Cancellation, Engine, Message
from model_runtime.loading import LoadProgress, load_engine
from model_runtime.sampling import SamplingParams
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings

logger = logging.getLogger(__name__)

DEFAULT_MAX_TOKENS = 512


class HybridClient:
    """One answer from a cloud and a device. Use as `async with`; several generations may run at once.

    `device`: an engine (stays the caller's, but only this client may use it until it is closed) or what
    `model_runtime.loading.load_engine` loads. `cloud`: `wss://host[:port]`. A mode needs the sides it names:
    ConfigurationError otherwise. A device model that does not load is an error in `ONLY_ON_DEVICE` (DeviceError);
    in the other modes the cloud answers and each report says why.
    """

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
        self.mode = mode
        self.split = split or SplitSettings()
        self.timeouts = timeouts or Timeouts()
        self._device_source = device
        self._address = Address.parse(cloud, api_key, cloud_model) if cloud is not None else None
        self._on_load = on_load
        self._worker: EngineWorker | None = None
        self._engine: Engine | None = None
        self._device_problem: str | None = None
        self._link: CloudLink | None = None
        self._cloud_forecast = CloudForecast()
        self._running: set[GenerationDriver] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._names = (f"{secrets.token_hex(4)}-{number}" for number in itertools.count(1))
        self._check_mode(mode)

    # --- life ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._device_source is not None:
            await self._load(self._device_source)
        if self._address is not None:
            tokenizer = self._engine.tokenizer if self._engine else None
            self._link = CloudLink(
                self._address,
                tokenizer=tokenizer.fingerprint if tokenizer else "",
                template=tokenizer.template_fingerprint if tokenizer else "",
                connect_timeout=self.timeouts.connect,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is running, close the link, free the engine if this client loaded it. Idempotent."""
        for driver in list(self._running):
            driver.cancel()
        if self._closing:
            await asyncio.gather(*self._closing)
        if self._link is not None:
            await self._link.close()
            self._link = None
        if self._worker is not None:
            worker, self._worker = self._worker, None
            await worker.close(shutdown_engine=not isinstance(self._device_source, Engine))

    @property
    def device_problem(self) -> str | None:
        """Why the device takes no part; None while it does."""
        if self._worker is not None and self._worker.broken is not None:
            return self._worker.broken
        return self._device_problem

    async def _load(self, source: Engine | str | Path) -> None:
        def load(cancellation: Cancellation) -> Engine:
            if isinstance(source, Engine):
                return source
            return load_engine(source, cancellation=cancellation, progress=self._on_load)

        self._worker = EngineWorker()
        try:
            self._engine = await self._worker.load(load, within=self.timeouts.load)
        except DeviceError as error:
            if self.mode is Mode.ONLY_ON_DEVICE or self._address is None:
                await self.close()
                raise
            logger.warning("the cloud answers alone: %s", error)
            self._device_problem = str(error)
        except BaseException:
            await self.close()
            raise

    # --- generations ---------------------------------------------------------------------------------------------

    async def generate(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        sampling: SamplingParams | None = None,
        stop: Iterable[str] = (),
        mode: Mode | None = None,
        split: SplitSettings | None = None,
    ) -> Answer:
        """The whole answer. Raises GenerationFailedError (with the partial answer), and what `stream` raises.

        Cancelling the await cancels the generation: the cloud's slot is freed, the device stops within one pass.
        """
        events = self.stream(prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, mode=mode, split=split)
        async with aclosing(events):
            async for event in events:
                match event:
                    case Finished(answer=answer):
                        return answer
                    case Failed(error=error):
                        raise error
                    case Cancelled(answer=answer):
                        raise GenerationCancelled("the client was closed", answer=answer)
                    case _:
                        pass
        raise AssertionError("a stream ended without a terminal event")

    async def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        sampling: SamplingParams | None = None,
        stop: Iterable[str] = (),
        mode: Mode | None = None,
        split: SplitSettings | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Events as they are to be shown, a terminal one last.

        `prompt`: chat messages, or one user message's text. `max_tokens`: output tokens at most. `stop`: strings that
        end the answer and are not part of it. Raises ConfigurationError, PromptTooLongError, BadInputError
        (TemplateError) before the first event, never later. Closing the generator cancels the generation.
        """
        driver = self._start(prompt, max_tokens, sampling or SamplingParams(), tuple(stop), mode, split)
        try:
            while True:
                event = await driver.events.get()
                yield event
                if isinstance(event, Finished | Failed | Cancelled):
                    return
        finally:
            driver.cancel()

    def _start(
        self,
        prompt: str | Sequence[Message],
        max_tokens: int,
        sampling: SamplingParams,
        stop: tuple[str, ...],
        mode: Mode | None,
        split: SplitSettings | None,
    ) -> GenerationDriver:
        if max_tokens < 0:
            raise ConfigurationError(f"max_tokens is {max_tokens}; it must be at least 0")
        mode = mode or self.mode
        split = split or self.split
        self._check_mode(mode)
        if self._link is None and self._worker is None:
            raise ConfigurationError("the client is not open; use it as `async with HybridClient(…) as client`")
        messages: Sequence[Message] = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
        tokenizer = self._engine.tokenizer if self._engine else None
        ids = tuple(tokenizer.render_chat(messages)) if tokenizer else ()
        problem = self._why_not_on_device(len(ids), max_tokens)
        if problem and mode is Mode.ONLY_ON_DEVICE:
            raise PromptTooLongError(problem) if self.device_problem is None else DeviceError(problem)

        forecast = self._worker.rates.forecast() if self._worker else DeviceForecast()
        machine = GenerationMachine(
            Request(ids, max_tokens, stop),
            self._sides(mode),
            split,
            tokenizer,
            forecast,
            self._cloud_forecast,
            Patience(self.timeouts.first_token, self.timeouts.idle, self.timeouts.device_pass),
            block=(self._engine.info.capabilities.chunk_length if self._engine else None) or 1,
        )
        driver = GenerationDriver(machine, mode, self._ended)
        courier = session = None
        if self._link is not None and mode.uses_cloud:
            size = tokenizer.vocabulary_size if tokenizer else 0
            question = Question(next(self._names), ids or None, messages, sampling, stop, size)
            courier = Courier(self._link, question, driver.feed)
        if self._worker is not None and mode.uses_device:
            session = self._worker.session(ids, sampling, driver.feed)
        driver.attach(courier, session)
        self._running.add(driver)
        driver.submit(problem)
        return driver

    def _ended(self, driver: GenerationDriver) -> None:
        self._running.discard(driver)
        machine = driver.machine
        if self._worker is not None and machine.device.progress:
            self._worker.rates.learn(machine.device.forecast, len(machine.request.prompt))
        task = asyncio.create_task(driver.release())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _why_not_on_device(self, prompt_tokens: int, max_tokens: int) -> str | None:
        if self._engine is None:
            return self.device_problem
        context = self._engine.info.context_length
        if prompt_tokens + max_tokens > context:
            return (
                f"{prompt_tokens} prompt tokens and up to {max_tokens} of the answer do not fit the device model's "
                f"context of {context} tokens; shorten the prompt or lower max_tokens"
            )
        return self.device_problem

    def _sides(self, mode: Mode) -> Sides:
        """The mode's sides, less those that this client was not given."""
        sides = SIDES[mode]
        device = sides.device if self._device_source is not None else Use.NEVER
        cloud = sides.cloud if self._address is not None else Use.NEVER
        return Sides(device, cloud, sides.hand_over)

    def _check_mode(self, mode: Mode) -> None:
        needs_device = mode in (Mode.SPLIT, Mode.ONLY_ON_DEVICE, Mode.PREFER_ON_DEVICE)
        needs_cloud = mode in (Mode.SPLIT, Mode.ONLY_IN_CLOUD, Mode.PREFER_IN_CLOUD)
        if needs_device and self._device_source is None:
            raise ConfigurationError(f"{mode.value} needs a device model: pass device=… to HybridClient")
        if needs_cloud and self._address is None:
            raise ConfigurationError(f"{mode.value} needs a cloud service: pass cloud='wss://…' to HybridClient")
