"""Drives one generation: performs the machine's commands, feeds it what happens, wakes it when it asks.

Everything runs on the event loop's thread and from callbacks, so that a token costs no task switch of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import Literal, TypeAlias, assert_never

from device_sdk.courier import Courier
from device_sdk.engine_worker import DeviceSession
from device_sdk.errors import DeviceError, GenerationFailedError
from device_sdk.events import Cancelled, Event, Failed, Finished, HandOver, Notice, Progress, Refined, Thought, Token
from device_sdk.generation.cloud_track import Gone
from device_sdk.generation.commands import (
    AnnounceHandOver,
    AnnounceRefinement,
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
from device_sdk.generation.inputs import (
    CancelRequested,
    DeviceEmptied,
    DeviceFailed,
    Input,
    PauseRequested,
    ResumeRequested,
    Submitted,
    Tick,
)
from device_sdk.generation.machine import GenerationMachine
from device_sdk.kept import Lease
from device_sdk.report import Answer
from device_sdk.reporting import answer_of
from device_sdk.settings import Mode
from device_sdk.telemetry.tracing import Trace
from model_runtime.core import Tokenizer
from model_runtime.prompt_map import PromptMap
from model_runtime.tools.reader import CallReader, Part

logger = logging.getLogger(__name__)

#: Who may hold a generation.
Holder: TypeAlias = Literal["switch", "background"]


class GenerationDriver:
    """One generation under way. `events` receives its public events, exactly one terminal one, last.

    `where` the messages stand in the prompt, for the report; `progress` asks for Progress events;
    `calls` finds tool calls in the text.
    """

    def __init__(
        self,
        machine: GenerationMachine,
        mode: Mode,
        on_end: Callable[[GenerationDriver], None],
        where: PromptMap | None = None,
        *,
        trace: Trace,
        progress: bool = False,
        lease: Lease | None = None,
        route_reason: str = "",
        calls: CallReader | None = None,
    ) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.machine = machine
        self.mode = mode
        self._on_end = on_end
        self._where = where
        self._trace = trace
        #: Its use of the device; None without one.
        self.lease = lease
        self._route_reason = route_reason
        self._calls = calls
        self._progress = Progress(0, 0, len(machine.request.prompt)) if progress else None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._held_by: set[Holder] = set()
        self._shown: Token | None = None
        self._courier: Courier | None = None
        self._session: DeviceSession | None = None
        self._device_problems: list[DeviceError] = []

    def attach(self, courier: Courier | None, session: DeviceSession | None) -> None:
        self._courier, self._session = courier, session

    def submit(self, device_problem: str | None) -> None:
        if device_problem is not None:
            self._device_problems.append(DeviceError(device_problem))
        self.feed(Submitted(device_problem))

    def cancel(self) -> None:
        """The answer so far comes in a `Cancelled` event at once. Harmless on an ended generation."""
        self.feed(CancelRequested())

    def pause(self, by: Holder = "switch") -> None:
        self._held_by.add(by)
        self.feed(PauseRequested())

    def resume(self, by: Holder = "switch") -> None:
        """Goes on once nobody holds it any more."""
        self._held_by.discard(by)
        if not self._held_by:
            self.feed(ResumeRequested())

    def sleep(self) -> None:
        """The device's memory is needed: pause, and give up the KV cache."""
        self.pause("background")
        if self._session is not None:
            self._session.drop()

    def wake(self, tokenizer: Tokenizer | None, problem: str | None) -> None:
        """The engine is there again, with this tokenizer; or it is not, and `problem` says why."""
        if self._session is not None and problem is None:
            self.machine.tokenizer = tokenizer
            self.feed(DeviceEmptied())
        elif self._session is not None:
            self.feed(DeviceFailed(problem or ""))
        self.resume("background")

    def spare_device(self, why: str) -> None:
        """Leave the rest to the cloud, where there is one that can still be asked."""
        if self._courier is not None and not isinstance(self.machine.cloud.state, Gone):
            self.feed(DeviceFailed(why))

    def feed(self, event: Input) -> None:
        if self._ended:
            return
        if isinstance(event, DeviceFailed):
            self._device_problems.append(DeviceError(event.message))
        try:
            for command in self.machine.handle(event, self._loop.time()):
                self._perform(command)
        except Exception as error:
            logger.exception("a generation failed by a defect of the SDK")
            self._end(Failed(self._failure(f"a defect of the SDK: {error!r}")))
        self._tell_progress()
        self._arm()

    def _tell_progress(self) -> None:
        if self._progress is None or self._ended:
            return
        read = self.machine.device.progress[-1][1] if self.machine.device.progress else 0
        progress = Progress(len(self.machine.showing.arrivals), read, self._progress.prompt)
        if progress != self._progress:
            self._progress = progress
            self._tell(progress)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wakeup = None if self._ended else self.machine.wakeup()
        if wakeup is not None:
            self._timer = self._loop.call_at(wakeup, self.feed, Tick())

    def _perform(self, command: Command) -> None:
        match command:
            case Show(index=index, token=token, text=text, source=source, thought=thought, hidden=hidden):
                if thought or hidden:
                    self._tell(Thought(index, thought, source, token))
                if not hidden:
                    self._show(Token(index, text, source, token))
            case Step():
                self._device.start(command)
            case CancelStep():
                self._device.cancel_step()
            case AskCloud() | ExtendCloud() | StopCloud() | TellProgress():
                self._cloud.say(command)
            case AnnounceHandOver(index=index):
                self._tell(HandOver(index))
            case AnnounceRefinement(stage=stage, final=final, kept=kept, guard=guard):
                self._tell(Refined(stage, final, kept, guard))
            case Notify(kind=kind, message=message):
                self._tell(Notice(kind, message))
            case Done(reason="cancelled"):
                self._end(Cancelled(self._answer()))
            case Done(reason="failed"):
                self._end(Failed(self._failure("no side could finish the answer")))
            case Done():
                self._end(Finished(self._answer()))
            case _:
                assert_never(command)

    def _show(self, token: Token) -> None:
        """A call's text is told as a call; what is before and after it, as text."""
        if self._calls is None:
            self._tell(token)
            return
        self._shown = token
        parts = self._calls.push(token.text)
        self._tell(dataclasses.replace(token, text="".join(part for part in parts if isinstance(part, str))))
        self._tell_calls(parts)

    def _tell_calls(self, parts: list[Part]) -> None:
        for part in parts:
            if not isinstance(part, str):
                self._tell(part)

    def _tell(self, event: Event) -> None:
        self.events.put_nowait(event)
        try:
            self._trace.see(event)
        except Exception:  # A broken tracer is no reason to end an answer.
            logger.exception("tracing a generation failed")

    @property
    def _device(self) -> DeviceSession:
        assert self._session is not None  # noqa: S101 - the mode's sides decide which of them exist
        return self._session

    @property
    def _cloud(self) -> Courier:
        assert self._courier is not None  # noqa: S101 - as above
        return self._courier

    def _answer(self) -> Answer:
        """At the end: what only looked like a call is told as text first."""
        answer = answer_of(self.machine, self.mode, self._where, self._route_reason)
        if self._calls is None:
            return answer
        parts = self._calls.end()
        text = "".join(part for part in parts if isinstance(part, str))
        if text and self._shown is not None:
            self._tell(dataclasses.replace(self._shown, text=text, token_id=None))
        self._tell_calls(parts)
        return dataclasses.replace(answer, text=self._calls.text, tool_calls=tuple(self._calls.calls))

    def _failure(self, message: str) -> GenerationFailedError:
        reasons = "; ".join(self.machine.notices)
        answer = self._answer()
        causes = (*(self._courier.problems if self._courier else ()), *self._device_problems)
        return GenerationFailedError(f"{message} ({reasons})" if reasons else message, answer=answer, causes=causes)

    def _end(self, terminal: Event) -> None:
        self._ended = True
        self._tell(terminal)
        if self._session is not None:
            self._session.close()
        self._on_end(self)

    async def release(self) -> None:
        """After the end: let the last words to the cloud leave."""
        if self._courier is not None:
            await self._courier.close()
