"""The life of one local server: load, serve, drain. What state it is in decides what every endpoint answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from device_sdk.client import HybridClient
from device_sdk.errors import PdDeviceError
from device_sdk.local_server.loading import client_for
from device_sdk.local_server.settings import LocalSettings
from http_api.openai.errors import ApiError
from model_runtime.core import Engine
from model_runtime.loading import LoadProgress

logger = logging.getLogger(__name__)

#: How soon it is worth asking again, in ms: while the model loads, and where all places are taken.
RETRY_AFTER_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is on its way into memory."""

    progress: LoadProgress | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """`name`: what clients call the model."""

    name: str


@dataclass(frozen=True, slots=True)
class Draining:
    """Running answers may finish; new ones are refused."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The model could not be loaded, and no cloud may answer in its place."""

    cause: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Everything is freed."""


State: TypeAlias = Loading | Serving | Draining | Broken | Stopped


class LocalService:
    """Belongs to one event loop. `device` stands in for the model that the settings name, and stays the caller's.
    Raises ConfigurationError for settings that no client can be made of."""

    def __init__(self, settings: LocalSettings, device: Engine | None = None) -> None:
        self.settings = settings
        self.state: State = Loading()
        #: Set once the model is loaded, or cannot be.
        self.settled = asyncio.Event()
        self._client = client_for(settings, self._progressed, device)
        self._loading: asyncio.Task[None] | None = None
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()

    @property
    def client(self) -> HybridClient:
        """To be asked while serving. Raises ApiError at any other time."""
        match self.state:
            case Serving():
                return self._client
            case Loading(progress):
                how_far = "" if progress is None else f" ({progress.stage}: {progress.fraction:.0%})"
                raise _unavailable(f"the model is being loaded{how_far}", "loading", RETRY_AFTER_MS)
            case Broken(cause):
                raise _unavailable(f"the model cannot be used: {cause}", "model_not_loaded", None)
            case Draining() | Stopped():
                raise shutting_down()

    @property
    def name(self) -> str:
        """What clients call the model. Raises ApiError unless serving."""
        _ = self.client
        assert isinstance(self.state, Serving)  # noqa: S101 - the line above
        return self.state.name

    @property
    def running(self) -> int:
        return self._running

    def device_problem(self) -> str | None:
        """Why the device takes no part in answers; None while it does."""
        return self._client.device_problem

    def take_place(self) -> Callable[[], None]:
        """A place for one answer, and the way to give it back, which may be called twice. Raises ApiError where none is
        free."""
        most = self.settings.max_generations
        if self._running >= most:
            text = f"{most} answers are under way, as many as `max_generations` allows"
            raise ApiError(429, text, kind="requests", code="rate_limit_exceeded", retry_after_ms=RETRY_AFTER_MS)
        self._running += 1
        self._idle.clear()
        taken = [True]

        def give_back() -> None:
            if taken:
                taken.clear()
                self._running -= 1
                if not self._running:
                    self._idle.set()

        return give_back

    # --- phase 1: load ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load the model; endpoints answer meanwhile, with 503."""
        self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        try:
            await self._client.__aenter__()
        except PdDeviceError as error:
            self.state = Broken(str(error))
        except Exception as error:
            logger.exception("loading failed")
            self.state = Broken(f"{type(error).__name__}: {error}")
        else:
            if isinstance(self.state, Loading):
                self.state = Serving(self._name())
        finally:
            self.settled.set()

    def _name(self) -> str:
        info = self._client.device_info
        return self.settings.model_name or (self.settings.device if info is None else info.model)

    def _progressed(self, progress: LoadProgress) -> None:
        """In the engine's thread."""
        if isinstance(self.state, Loading):
            self.state = Loading(progress)

    # --- phase 2: drain -----------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Let a drain under way wait no longer for what runs."""
        self._hurry.set()

    async def drain(self) -> None:
        """Go away in good order, within the grace that is set. Harmless a second time."""
        if isinstance(self.state, Draining | Stopped):
            return
        broken = isinstance(self.state, Broken)
        # 1. Nothing new.
        if not broken:
            self.state = Draining()
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
        # 2. What runs may finish, within the grace.
        ends = [asyncio.create_task(event.wait()) for event in (self._idle, self._hurry)]
        await asyncio.wait(ends, timeout=self.settings.drain_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        # 3. What is left ends in `Cancelled`, which the endpoints tell as an error.
        if self._loading is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._loading
        await self._client.close()
        if not broken:
            self.state = Stopped()


def shutting_down() -> ApiError:
    return _unavailable("the server is shutting down", "shutting_down", None)


def _unavailable(text: str, code: str, retry_after_ms: float | None) -> ApiError:
    return ApiError(503, text, kind="server_error", code=code, retry_after_ms=retry_after_ms)
