"""Drives one generation: performs the machine's commands, feeds it what happens, wakes it when it asks.

Everything runs on the event loop's thread and from callbacks, so that a token costs no task switch of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import assert_never

from device_sdk.courier import Courier
from device_sdk.engine_worker import DeviceSession
from device_sdk.errors import GenerationFailedError
from device_sdk.events import Cancelled, Event, Failed, Finished, HandOver, Notice, Token
from device_sdk.generation.commands import (
    AnnounceHandOver,
    AskCloud,
    CancelStep,
    Command,
    Done,
    ExtendCloud,
    Notify,
    Show,
    Step,
    StopCloud,
    TellProgress,
)
from device_sdk.generation.inputs import CancelRequested, Input, Submitted, Tick
from device_sdk.generation.machine import GenerationMachine
from device_sdk.reporting import answer_of
from device_sdk.settings import Mode

logger = logging.getLogger(__name__)


class GenerationDriver:
    """One generation under way. `events` receives its public events, exactly one terminal one, last."""

    def __init__(self, machine: GenerationMachine, mode: Mode, on_end: Callable[[GenerationDriver], None]) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.machine = machine
        self._mode = mode
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._courier: Courier | None = None
        self._session: DeviceSession | None = None

    def attach(self, courier: Courier | None, session: DeviceSession | None) -> None:
        self._courier, self._session = courier, session

    def submit(self, device_problem: str | None) -> None:
        self.feed(Submitted(device_problem))

    def cancel(self) -> None:
        """The answer so far comes in a `Cancelled` event at once. Harmless on an ended generation."""
        self.feed(CancelRequested())

    def feed(self, event: Input) -> None:
        if self._ended:
            return
        try:
            for command in self.machine.handle(event, self._loop.time()):
                self._perform(command)
        except Exception as error:
            logger.exception("a generation failed by a defect of the SDK")
            self._end(Failed(self._failure(f"a defect of the SDK: {error!r}")))
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wakeup = None if self._ended else self.machine.wakeup()
        if wakeup is not None:
            self._timer = self._loop.call_at(wakeup, self.feed, Tick())

    def _perform(self, command: Command) -> None:
        match command:
            case Show(index=index, token=token, text=text, source=source):
                self.events.put_nowait(Token(index, text, source, token))
            case Step():
                self._device.start(command)
            case CancelStep():
                self._device.cancel_step()
            case AskCloud() | ExtendCloud() | StopCloud() | TellProgress():
                self._cloud.say(command)
            case AnnounceHandOver(index=index):
                self.events.put_nowait(HandOver(index))
            case Notify(kind=kind, message=message):
                self.events.put_nowait(Notice(kind, message))
            case Done(reason="cancelled"):
                self._end(Cancelled(answer_of(self.machine, self._mode)))
            case Done(reason="failed"):
                self._end(Failed(self._failure("no side could finish the answer")))
            case Done():
                self._end(Finished(answer_of(self.machine, self._mode)))
            case _:
                assert_never(command)

    @property
    def _device(self) -> DeviceSession:
        assert self._session is not None  # noqa: S101 - the mode's sides decide which of them exist
        return self._session

    @property
    def _cloud(self) -> Courier:
        assert self._courier is not None  # noqa: S101 - as above
        return self._courier

    def _failure(self, message: str) -> GenerationFailedError:
        reasons = "; ".join(self.machine.notices)
        answer = answer_of(self.machine, self._mode)
        return GenerationFailedError(f"{message} ({reasons})" if reasons else message, answer=answer)

    def _end(self, terminal: Event) -> None:
        self._ended = True
        self.events.put_nowait(terminal)
        if self._session is not None:
            self._session.close()
        self._on_end(self)

    async def release(self) -> None:
        """After the end: let the last words to the cloud leave."""
        if self._courier is not None:
            await self._courier.close()
