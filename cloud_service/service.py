"""The life of one service: start, serve, drain. What state it is in decides what every endpoint answers."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from cloud_service.backend import Backend, Opened
from cloud_service.desk import Bounds, Desk
from cloud_service.keys.records import KeyLimits
from cloud_service.keys.ring import KeyRing
from cloud_service.limits import CallerLimits, open_store
from cloud_service.metrics import Metrics
from cloud_service.refinement.refinery import Refinery
from cloud_service.scheduler.policy import PassBudget
from cloud_service.scheduler.runner import Runner
from cloud_service.scheduler.slack import Targets
from cloud_service.settings import Settings
from cloud_service.telemetry.choose import choose_tracing
from model_runtime.core import Cancellation, Engine

logger = logging.getLogger(__name__)

#: How long after the grace the engine's pass and the connections get to end, in seconds.
CLOSE_TIMEOUT = 5.0

#: Blocks until the engine, and what scores its prompts, is loaded. Raises LoadError, RefinementError, CalibrationError.
LoadEngine: TypeAlias = Callable[[Cancellation], tuple[Engine, Refinery]]

#: Waits until an engine elsewhere is there. What it raises ends the service.
Connect: TypeAlias = Callable[[], Awaitable[Opened]]


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is on its way into memory."""


@dataclass(frozen=True, slots=True)
class Serving:
    desk: Desk


@dataclass(frozen=True, slots=True)
class Draining:
    """Running generations may finish; new ones are refused."""

    desk: Desk


@dataclass(frozen=True, slots=True)
class Broken:
    """The model could not be loaded (`loaded` is False), or its engine failed. A new process is needed."""

    cause: str
    loaded: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """Everything is freed."""


State: TypeAlias = Loading | Serving | Draining | Broken | Stopped


class Connection(Protocol):
    """An open device connection, as the service sees it."""

    def announce_draining(self, in_ms: float) -> None: ...

    async def go_away(self) -> None:
        """Close with 1001, once what is queued was sent or a second has passed."""
        ...


class Service:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = KeyRing(settings.key_file)
        self.metrics = Metrics()
        self.connections: set[Connection] = set()
        self.state: State = Loading()
        #: Set once the model is loaded, or cannot be.
        self.settled = asyncio.Event()
        self._limits = CallerLimits(
            KeyLimits(
                settings.max_generations, settings.requests_per_minute, settings.tokens_per_minute, settings.max_grant
            ),
            open_store(settings.rate_limit_store.get_secret_value()),
            self.metrics.rate_limit_errors.inc,
        )
        self._tracing = choose_tracing(settings.traces)
        self._cancel_load = Cancellation()
        self._loading: asyncio.Task[None] | None = None
        self._backend: Backend | None = None
        self._refinery: Refinery | None = None
        self._drained = False
        self._hurry = asyncio.Event()

    # --- phase 1: start -----------------------------------------------------------------------------------------

    def start(self, load: LoadEngine) -> None:
        """Begin to load the model; endpoints answer meanwhile, `/ready` with 503."""
        self._loading = asyncio.create_task(self._load(load))

    def connect(self, connect: Connect) -> None:
        """Begin to look for engines elsewhere; the same meanwhile."""
        connecting = self._loading = asyncio.create_task(self._connect(connect))
        self._cancel_load.on_cancel(functools.partial(_cancel, connecting))

    async def _connect(self, connect: Connect) -> None:
        try:
            self._open(await connect())
        except Exception as error:
            self.state = Broken(str(error), loaded=False)
        finally:
            self.settled.set()

    async def _load(self, load: LoadEngine) -> None:
        try:
            engine, refinery = await asyncio.to_thread(load, self._cancel_load)
        except Exception as error:
            # Not only LoadError: whatever the loader raises, the process must say so and not wait for ever.
            if not self._cancel_load.cancelled:
                self.state = Broken(str(error), loaded=False)
        else:
            self.serve(engine, refinery)
        finally:
            self.settled.set()

    # --- phase 2: serve -----------------------------------------------------------------------------------------

    def serve(self, engine: Engine, refinery: Refinery) -> None:
        """Take on generations. The service owns the engine and the refinery from here on."""
        if not isinstance(self.state, Loading):
            engine.shutdown()
            refinery.close()
            return
        settings, info = self.settings, engine.info
        chunk_length = info.capabilities.chunk_length or 1
        runner = Runner(
            engine,
            budget=PassBudget(max(settings.pass_tokens, 2 * chunk_length), chunk_length),
            places=min(settings.max_sequences, info.max_sequences),
            queue_depth=settings.queue_depth,
            targets=Targets(settings.first_token_target_ms / 1000, settings.assumed_pace_ms / 1000),
            keeps_prefixes=settings.prefix_cache != "off",
            post=asyncio.get_running_loop().call_soon_threadsafe,
            observe=self.metrics.observe_pass,
            failed=self.engine_failed,
        )
        self._open(Opened(runner, info, engine.tokenizer, refinery))

    def _open(self, opened: Opened) -> None:
        settings, info, backend = self.settings, opened.info, opened.backend
        self._backend, self._refinery = backend, opened.refinery
        self.metrics.watch(backend.occupancy)
        bounds = Bounds(
            context_length=info.context_length,
            max_prompt_tokens=min(settings.max_prompt_tokens or info.context_length, info.context_length - 1),
            max_grant=settings.max_grant,
            plan=settings.read_split_config(),
        )
        desk = Desk(
            backend,
            info,
            opened.tokenizer,
            model_name=settings.model_name or info.model,
            bounds=bounds,
            limits=self._limits,
            metrics=self.metrics,
            refinery=opened.refinery,
            tracing=self._tracing,
            shares_prefixes=settings.prefix_cache == "shared",
        )
        self.state = Serving(desk)
        self.settled.set()
        logger.info("serving", extra={"model": desk.model_name})

    def engine_failed(self, cause: str) -> None:
        """No generation can be served any more: `/health` says so."""
        self.state = Broken(cause, loaded=True)

    # --- phase 3: drain -----------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Let a drain under way wait no longer for what runs."""
        self._hurry.set()

    async def drain(self) -> None:
        """Go away in good order, within the grace that is set and CLOSE_TIMEOUT. Harmless a second time."""
        if self._drained:
            return
        self._drained = True
        # 1. Nothing new: `/ready` says 503, devices are told, generations are refused.
        self._cancel_load.cancel()
        if isinstance(self.state, Serving):
            self.state = Draining(self.state.desk)
        for connection in tuple(self.connections):
            connection.announce_draining(self.settings.drain_ms)
        # 2. What runs may finish, within the grace.
        if self._backend is not None:
            idle = asyncio.wrap_future(self._backend.drain())
            hurried = asyncio.create_task(self._hurry.wait())
            ends: list[asyncio.Future[Any]] = [idle, hurried]
            grace = self.settings.drain_ms / 1000
            await asyncio.wait(ends, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            # 3. What is left ends in an error that says to go elsewhere, and the engine is freed.
            await asyncio.to_thread(self._backend.close, CLOSE_TIMEOUT)
        if self._refinery is not None:
            self._refinery.close()
        if not isinstance(self.state, Broken):
            self.state = Stopped()
        await asyncio.to_thread(self._tracing.close)
        await self._limits.close()
        # 4. The devices' connections close.
        await asyncio.gather(*(connection.go_away() for connection in tuple(self.connections)))
        if self._loading is not None:
            await asyncio.wait([self._loading], timeout=CLOSE_TIMEOUT)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
