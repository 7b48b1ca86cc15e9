"""The life of one service: start, serve, drain. What state it is in decides what every endpoint answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from cloud_service.auth import KeyRing
from cloud_service.desk import Bounds, Desk
from cloud_service.limits import CallerLimits
from cloud_service.metrics import Metrics
from cloud_service.refinement import KeepAll, Refiner
from cloud_service.scheduler.policy import PassBudget
from cloud_service.scheduler.runner import Runner
from cloud_service.settings import Settings
from model_runtime.core import Cancellation, Engine

logger = logging.getLogger(__name__)

#: How long after the grace the engine's pass and the connections get to end, in seconds.
CLOSE_TIMEOUT = 5.0

#: Blocks until the engine is loaded. Raises LoadError.
LoadEngine: TypeAlias = Callable[[Cancellation], Engine]


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
        self.keys = KeyRing(settings.keys)
        self.metrics = Metrics()
        self.refiner: Refiner = KeepAll()
        self.connections: set[Connection] = set()
        self.state: State = Loading()
        #: Set once the model is loaded, or cannot be.
        self.settled = asyncio.Event()
        self._limits = CallerLimits(settings.max_generations, settings.requests_per_minute)
        self._cancel_load = Cancellation()
        self._loading: asyncio.Task[None] | None = None
        self._runner: Runner | None = None
        self._drained = False
        self._hurry = asyncio.Event()

    # --- phase 1: start -----------------------------------------------------------------------------------------

    def start(self, load: LoadEngine) -> None:
        """Begin to load the model; endpoints answer meanwhile, `/ready` with 503."""
        self._loading = asyncio.create_task(self._load(load))

    async def _load(self, load: LoadEngine) -> None:
        try:
            engine = await asyncio.to_thread(load, self._cancel_load)
        except Exception as error:
            # Not only LoadError: whatever the loader raises, the process must say so and not wait for ever.
            if not self._cancel_load.cancelled:
                self.state = Broken(str(error), loaded=False)
        else:
            self.serve(engine)
        finally:
            self.settled.set()

    # --- phase 2: serve -----------------------------------------------------------------------------------------

    def serve(self, engine: Engine) -> None:
        """Take on generations. The service owns the engine from here on."""
        if not isinstance(self.state, Loading):
            engine.shutdown()
            return
        settings, info = self.settings, engine.info
        chunk_length = info.capabilities.chunk_length or 1
        runner = Runner(
            engine,
            budget=PassBudget(max(settings.pass_tokens, 2 * chunk_length), chunk_length),
            places=min(settings.max_sequences, info.max_sequences),
            queue_depth=settings.queue_depth,
            post=asyncio.get_running_loop().call_soon_threadsafe,
            observe=self.metrics.observe_pass,
            failed=self._engine_failed,
        )
        self._runner = runner
        self.metrics.watch(runner.occupancy)
        bounds = Bounds(
            context_length=info.context_length,
            max_prompt_tokens=min(settings.max_prompt_tokens or info.context_length, info.context_length - 1),
            max_grant=settings.max_grant,
        )
        desk = Desk(
            runner,
            info,
            engine.tokenizer,
            model_name=settings.model_name or info.model,
            bounds=bounds,
            limits=self._limits,
            metrics=self.metrics,
        )
        self.state = Serving(desk)
        self.settled.set()
        logger.info("serving", extra={"model": desk.model_name})

    def _engine_failed(self, cause: str) -> None:
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
        if self._runner is not None:
            idle = asyncio.wrap_future(self._runner.drain())
            hurried = asyncio.create_task(self._hurry.wait())
            ends: list[asyncio.Future[Any]] = [idle, hurried]
            grace = self.settings.drain_ms / 1000
            await asyncio.wait(ends, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            # 3. What is left ends in an error that says to go elsewhere, and the engine is freed.
            await asyncio.to_thread(self._runner.close, CLOSE_TIMEOUT)
        if not isinstance(self.state, Broken):
            self.state = Stopped()
        # 4. The devices' connections close.
        await asyncio.gather(*(connection.go_away() for connection in tuple(self.connections)))
        if self._loading is not None:
            await asyncio.wait([self._loading], timeout=CLOSE_TIMEOUT)
