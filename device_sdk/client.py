"""The client: models in, questions in, answers out."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from device_sdk.courier import Courier, Question
from device_sdk.driver import GenerationDriver
from device_sdk.ending import answer_of
from device_sdk.engine_worker import EngineWorker
from device_sdk.errors import ConfigurationError, DeviceError, PromptTooLongError
from device_sdk.events import Cancelled, Event, Failed, Finished
from device_sdk.fitting import fit, reading_alike
from device_sdk.form import Form, form_of
from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES, Fit, Patience, Request, Sides, Use
from device_sdk.generation.prompt import PromptTrack
from device_sdk.kept import KeptKV, Lease, Shelf
from device_sdk.link import Address, CloudLink
from device_sdk.pausing import PauseSwitch
from device_sdk.planned import Split, read_split
from device_sdk.policies.daily import DailyCap
from device_sdk.policies.decision import Ask, Policy
from device_sdk.policies.situation import Situation
from device_sdk.policies.steward import Steward, within
from device_sdk.prefixes import SharedPrefixes
from device_sdk.raw import RawPrompt
from device_sdk.refining import Protected, Refining, refining, wished_ratio
from device_sdk.report import Answer
from device_sdk.route import Work, route
from device_sdk.settings import Mode, Timeouts
from device_sdk.telemetry.tracing import Began, NoTracing, Tracing, checked
from device_sdk.watching import CloudWatch
from model_runtime.constraint import Constraint
from model_runtime.core import Cancellation, Engine, EngineInfo, Message, Tokenizer
from model_runtime.loading import LoadProgress, load_engine
from model_runtime.sampling import SamplingParams
from model_runtime.thinking import thinking_reader
from model_runtime.tools.spec import Tool, ToolChoice
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings

logger = logging.getLogger(__name__)

DEFAULT_MAX_TOKENS = 512
#: A rule of thumb, to find a prompt's bucket where no tokenizer is at hand.
CHARACTERS_PER_TOKEN = 4


class Loader(Protocol):
    """Loads the device's engine, in the engine's thread; such as `functools.partial(load_engine, spec, threads=4)`.
    `progress` may be None. `cancellation` asks it to stop."""

    def __call__(self, *, cancellation: Cancellation, progress: Callable[[LoadProgress], None] | None) -> Engine: ...


class HybridClient:
    """One answer from a cloud and a device. Use as `async with`; several generations may run at once.

    `device`: an engine (stays the caller's, but only this client may use it until it is closed), what
    `model_runtime.loading.load_engine` loads, or a Loader, whose engine is this client's. `cloud`: `wss://host[:port]`.
    A mode needs the sides it names: ConfigurationError otherwise. A device model that does not load is an error in
    `ONLY_ON_DEVICE` (DeviceError); in the other modes the cloud answers and each report says why. `split`: settings for
    every prompt, or what `pd-plan solve` made (its file's path, too): settings by the prompt's length, which may leave
    a prompt to one side. `warm_conversations`: how many idle conversations keep their KV cache on the device.
    `share_prefixes`: prompts outside of conversations keep theirs, too, for prompts that begin alike.
    `tracing`: where a span of each generation goes (`device_sdk.telemetry.otel.OtelTracing`); None: nowhere.
    `policy`: who may answer in which `situation` (see `device_sdk.policies`); by default StandardPolicy, which changes
    nothing while nothing is known. `daily_cap`: how many tokens may come from the cloud on a day.
    """

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
        warm_conversations: int = 4,
        share_prefixes: bool = False,
        tracing: Tracing | None = None,
        policy: Policy | None = None,
        situation: Callable[[], Situation] | None = None,
        daily_cap: DailyCap | None = None,
    ) -> None:
        self.mode = mode
        self.split = SplitSettings() if split is None else read_split(split)
        self.timeouts = timeouts or Timeouts()
        self._device_source = device
        self._address = Address.parse(cloud, api_key, cloud_model) if cloud is not None else None
        self._on_load = on_load
        self._tracing = tracing or NoTracing()
        self._steward = Steward(policy, situation, daily_cap)
        self._background = False
        self._worker: EngineWorker | None = None
        #: What conversations keep on the device; None before it is loaded.
        self.shelf: Shelf | None = None
        self._warm_conversations = warm_conversations
        self._prefixes = SharedPrefixes() if share_prefixes else None
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
            if self.shelf is not None:
                self.shelf.forget()
            await worker.close(shutdown_engine=self._owns_engine)

    @property
    def device_problem(self) -> str | None:
        """Why the device takes no part; None while it does."""
        if self._worker is not None and self._worker.broken is not None:
            return self._worker.broken
        return self._device_problem

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The device's; None while no engine is loaded."""
        return None if self._engine is None else self._engine.tokenizer

    @property
    def cloud_refines(self) -> bool:
        """Whether the cloud can be asked which part of a prompt matters. False without a cloud, and once a refinement
        that was asked for did not come."""
        return self._address is not None and self._cloud_forecast.refines

    @property
    def device_info(self) -> EngineInfo | None:
        """What the device's engine is; None while none is loaded."""
        return None if self._engine is None else self._engine.info

    async def enter_background(self) -> None:
        """Give back what the device's model takes of memory: the KV caches, and the weights where this client loaded
        them. What is under way is paused; nothing can be begun. Returns when the memory is free. Idempotent."""
        if self._worker is None or self._background:
            return
        self._background = True
        for driver in self._running:
            driver.sleep()
        if self.shelf is not None:
            self.shelf.forget()
        if self._owns_engine:
            await self._worker.unload(shutdown_engine=True)

    async def enter_foreground(self) -> None:
        """Load the model again and go on: the device reads its prompts anew, and the cloud is asked where it was at
        work. A model that does not load is a Notice in each answer, which the cloud finishes where the mode has one."""
        if self._worker is None or not self._background or self._device_source is None:
            return
        if self._owns_engine:
            try:
                self._engine = await self._worker.load(
                    self._loader(self._device_source), within=self.timeouts.load, warm_up=False
                )
                self._device_problem = None
            except DeviceError as error:
                self._device_problem = str(error)
        self._background = False
        for driver in list(self._running):
            if driver.lease is not None and driver.lease.kept is not None:
                driver.lease.kept.engine = self._worker.engine
            driver.wake(self.tokenizer, self.device_problem)

    @property
    def _owns_engine(self) -> bool:
        return not isinstance(self._device_source, Engine)

    def _loader(self, source: Engine | Loader | str | Path) -> Callable[[Cancellation], Engine]:
        def load(cancellation: Cancellation) -> Engine:
            if isinstance(source, Engine):
                return source
            if callable(source):
                return source(cancellation=cancellation, progress=self._on_load)
            return load_engine(source, cancellation=cancellation, progress=self._on_load)

        return load

    async def _load(self, source: Engine | Loader | str | Path) -> None:
        self._worker = EngineWorker()
        self.shelf = Shelf(self._worker, self._warm_conversations)
        try:
            self._engine = await self._worker.load(self._loader(source), within=self.timeouts.load)
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
        """The whole answer. Raises GenerationFailedError (with the partial answer), and what `stream` raises.

        Cancelling the await cancels the generation: the cloud's slot is freed, the device stops within one pass.
        """
        events = self.stream(
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
        return await answer_of(events, cancelled="the client was closed")

    async def stream(
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
        kept: KeptKV | None = None,
        situation: Situation | None = None,
        pause: PauseSwitch | None = None,
        traceparent: str = "",
    ) -> AsyncGenerator[Event, None]:
        """Events as they are to be shown, a terminal one last.

        `prompt`: chat messages, one user message's text, or a RawPrompt. `max_tokens`: output tokens at most; None: as
        many as the device's context has room for. `stop`: strings that end the answer and are not part of it.
        `refine`, in a split: whether the device reads only the part of the prompt that matters, as the cloud sees it.
        None: as `split` says (by default a quarter of prompts of 512 tokens or more); False: no; a number: this share,
        whatever the length.
        `protect`: what stays beside template, system text, question and the prompt's end, such as examples.
        `progress`: Progress events too. `cancellation`, from any thread: the generation ends at once, and the stream in
        Cancelled, with the answer so far and its report. `kept`: a conversation's KV cache, see `Conversation`.
        `response_format`: what the whole answer must be, held token by token on both sides (extra `structured`); an
        answer that `max_tokens` cuts off is the beginning of one, and `report.finish_reason` is `length`. `tools`: what
        the model may ask to have called; it is told by its chat template, or in words. `tool_choice`: see ToolChoice.
        `situation`: what is true of this question (its privacy, its deadline) or better known than by the client's
        `situation`. `pause`: holds the generation while it is on.
        `traceparent`: the app's span (W3C Trace Context), under which the service's spans hang; by default
        OpenTelemetry's current one, where there is any.

        Raises ConfigurationError, PromptTooLongError, BadInputError (TemplateError) before the first event, never
        later. Closing the generator cancels the generation.
        """
        if isinstance(prompt, str):
            prompt = [Message(role="user", content=prompt)]
        tools = tuple(tools)
        form = Form()
        if response_format is not None or tools or tool_choice != "auto":

            def render(told: Sequence[Tool]) -> Sequence[int]:
                return self._read(prompt, Form(tuple(told)))[1]

            form = await asyncio.to_thread(form_of, response_format, tools, tool_choice, self.tokenizer, render)
        driver = self._start(
            prompt,
            form,
            max_tokens,
            sampling or SamplingParams(),
            tuple(stop),
            mode,
            split,
            refine,
            protect,
            progress,
            kept,
            situation,
            checked(traceparent),
        )
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            loop.call_soon_threadsafe(driver.cancel)

        def hold(on: bool) -> None:
            loop.call_soon_threadsafe(driver.pause if on else driver.resume)

        forget = (cancellation or Cancellation()).on_cancel(cancel)
        unhold = (pause or PauseSwitch()).listen(hold)
        try:
            while True:
                event = await driver.events.get()
                yield event
                if isinstance(event, Finished | Failed | Cancelled):
                    return
        finally:
            forget()
            unhold()
            driver.cancel()

    def _start(
        self,
        prompt: Sequence[Message] | RawPrompt,
        form: Form,
        max_tokens: int | None,
        sampling: SamplingParams,
        stop: tuple[str, ...],
        mode: Mode | None,
        split: Split | None,
        refine: bool | float | None,
        protect: Iterable[Protected],
        progress: bool,
        kept: KeptKV | None,
        situation: Situation | None,
        traceparent: str,
    ) -> GenerationDriver:
        if max_tokens is not None and max_tokens < 0:
            raise ConfigurationError(f"max_tokens is {max_tokens}; it must be at least 0")
        if not all(stop):
            raise ConfigurationError("a stop string is empty: it would stop every answer before it begins")
        mode = mode or self.mode
        self._check_mode(mode)
        if self._link is None and self._worker is None:
            raise ConfigurationError("the client is not open; use it as `async with HybridClient(…) as client`")
        if self._background:
            raise ConfigurationError("the client is in the background; call enter_foreground before asking anything")
        tokenizer = self._engine.tokenizer if self._engine else None
        messages, ids = self._read(prompt, form)
        length = len(ids) or sum(len(message["content"]) for message in messages) // CHARACTERS_PER_TOKEN
        if max_tokens is None:
            max_tokens = self._room(len(ids))
        if kept is None and self._prefixes is not None and self.shelf is not None:
            kept = self._prefixes.choose(ids)
        forecast = self._worker.rates.forecast() if self._worker else DeviceForecast()
        before = PromptTrack(ids, read=kept.reading.of(ids) if kept else ())
        now = self._steward.now(situation)
        asked = Ask(mode, length, self._device_usable, self._address is not None, forecast.ready_in(before.left))
        decision = self._steward.decide(asked, now)
        mode = decision.mode
        self._check_mode(mode)
        refine = refine if decision.refine else False
        room = None if self._engine is None or refine is False else self._engine.info.context_length - max_tokens
        work = Work(length, before.left if ids else length, before.left_out, room if room and room > 0 else None)
        chosen = route(mode, self.split if split is None else read_split(split), work, forecast, self._cloud_forecast)
        settings, mode = within(chosen.settings, decision), chosen.mode
        reasons = (decision.reason, chosen.reason if decision.mode is asked.mode else "")
        problem = self._why_not_on_device(len(ids), max_tokens)
        if problem and mode is Mode.ONLY_ON_DEVICE:
            raise PromptTooLongError(problem) if self.device_problem is None else DeviceError(problem)

        wanted: Refining | None = None
        fitted: Fit | None = None
        if tokenizer is not None and messages and mode is Mode.SPLIT:
            if work.too_long and work.room is not None:
                refine, fitted = fit(len(ids), work.room, wished_ratio(settings, refine))
            wanted = refining(messages, ids, tokenizer, settings, refine, protect, fits=fitted is None)
            if wanted is not None and fitted is not None:
                if wanted.wish.reread:
                    fitted = reading_alike(fitted, wanted.wish.protected)
                problem = self.device_problem
        thinking = thinking_reader(tokenizer, ids) if tokenizer else None
        lease: Lease | None = None
        if self.shelf is not None and mode.uses_device:
            lease = self.shelf.lease(kept, ids, max_tokens)
        reason = (
            f"the device takes no part: {problem}" if problem and mode.uses_device else "; ".join(filter(None, reasons))
        )
        machine = GenerationMachine(
            Request(
                ids,
                max_tokens,
                stop,
                wanted.wish if wanted else None,
                lease.read if lease else (),
                fitted,
                thinking,
                device_wait=decision.device_wait,
                cloud_limit=self._steward.left,
            ),
            self._sides(mode),
            settings,
            tokenizer,
            forecast,
            self._cloud_forecast,
            Patience(self.timeouts.first_token, self.timeouts.idle, self.timeouts.device_pass),
            block=(self._engine.info.capabilities.chunk_length if self._engine else None) or 1,
        )
        where = wanted.map if wanted else None
        trace = self._tracing.begin(Began(mode, self._model, len(ids), max_tokens, sampling, stop, traceparent))
        driver = GenerationDriver(
            machine,
            mode,
            self._ended,
            where,
            trace=trace,
            progress=progress,
            lease=lease,
            route_reason=reason,
            calls=form.reader(),
        )
        courier = session = None
        if self._link is not None and mode.uses_cloud:
            size = tokenizer.vocabulary_size if tokenizer else 0
            watch = form.watch()
            question = Question(
                next(self._names),
                ids or None,
                form.as_text(messages),
                sampling,
                () if thinking else stop,  # The cloud would find them in the thinking, too.
                size,
                wanted,
                trace.traceparent,
                form.on_wire(),
                CloudWatch(watch, tokenizer) if watch else None,
                reworded=form.rewords(messages),
                deadline=now.deadline if mode.uses_device else None,
            )
            courier = Courier(self._link, question, driver.feed)
        if self._worker is not None and mode.uses_device:
            session = self._worker.session(ids, sampling, driver.feed, lease.kept if lease else None, form.rule())
        driver.attach(courier, session)
        self._running.add(driver)
        driver.submit(problem)
        return driver

    def _read(self, prompt: Sequence[Message] | RawPrompt, form: Form) -> tuple[Sequence[Message], tuple[int, ...]]:
        """The messages, and the prompt in the device's tokens; none where there are none. Raises ConfigurationError,
        DeviceError, BadInputError."""
        if not isinstance(prompt, RawPrompt):
            tokenizer = self.tokenizer
            return prompt, tuple(tokenizer.render_chat(prompt, tools=form.tools)) if tokenizer else ()
        if not prompt.text or form.tools:
            raise ConfigurationError("a raw prompt has some text, and no tools: those go into a chat template")
        if self.tokenizer is None:
            why = self.device_problem or "there is no device"
            raise DeviceError(f"a raw prompt needs the device's tokenizer: {why}")
        return (), tuple(self.tokenizer.encode(prompt.text, special=True))

    def _ended(self, driver: GenerationDriver) -> None:
        self._running.discard(driver)
        machine = driver.machine
        if self._worker is not None and machine.device.progress:
            self._worker.rates.learn(machine.device.forecast, len(machine.request.prompt))
        if self.shelf is not None and driver.lease is not None:
            self.shelf.release(driver.lease, machine.device.holds())
        self._steward.spent(machine.cloud.given)
        task = asyncio.create_task(self._release(driver))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _release(self, driver: GenerationDriver) -> None:
        await driver.release()
        if driver.machine.cloud.given:
            await asyncio.to_thread(self._steward.save)

    @property
    def _device_usable(self) -> bool:
        return self._device_source is not None and self.device_problem is None

    def reconsider(self, situation: Situation | None = None) -> None:
        """The situation has changed: generations under way that would now be left to the cloud, are, with a Notice.
        Those that nobody else could finish go on."""
        now = self._steward.now(situation)
        for driver in list(self._running):
            asked = Ask(driver.mode, len(driver.machine.request.prompt), self._device_usable, self._address is not None)
            try:
                decision = self._steward.decide(asked, now)
            except ConfigurationError:  # It needs the cloud, which was allowed when it began.
                continue
            if decision.mode is Mode.PREFER_IN_CLOUD:
                driver.spare_device(decision.reason)

    def _room(self, prompt_tokens: int) -> int:
        """The longest answer that fits the context beside the prompt; the default where none does or none is known."""
        room = 0 if self._engine is None else self._engine.info.context_length - prompt_tokens
        return room if room > 0 else DEFAULT_MAX_TOKENS

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

    @property
    def _model(self) -> str:
        """Of the device, or as asked of the cloud; empty where neither is known."""
        if self._engine is not None:
            return self._engine.info.model
        return self._address.model if self._address else ""

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
