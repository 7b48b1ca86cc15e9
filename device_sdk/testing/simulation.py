"""A generation in virtual time: the shipping state machine against a simulated device and cloud.

For tests of anything that paces, grants or falls back, and for the planner, where many generations share one loop and
one cloud: a second of an answer takes about a millisecond. Each side is a function from the output so far to its next
token, with speeds and faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from device_sdk.events import Notice
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
from device_sdk.generation.inputs import CancelRequested, DeviceFailed, Input, StepDone, Submitted, Tick
from device_sdk.generation.machine import GenerationMachine
from device_sdk.testing.simulated_cloud import CloudSide, NextToken, SimulatedCloud
from device_sdk.testing.virtual_time import EventLoop

__all__ = ["CloudSide", "DeviceSide", "NextToken", "SimulatedCloud", "SimulatedDevice", "Simulation"]


class DeviceSide(Protocol):
    """The engine of a simulated device."""

    @property
    def next_token(self) -> NextToken: ...

    def seconds(self, step: Step) -> float | None:
        """How long this pass takes; None: the engine breaks in it. Called once for each pass, in order."""


@dataclass(slots=True)
class SimulatedDevice:
    """Seconds: a pass of n tokens takes `overhead + n / prefill_rate`, a decode step `tpot`."""

    next_token: NextToken
    prefill_rate: float = 1_000.0
    tpot: float = 0.040
    overhead: float = 0.0
    #: The engine breaks in its nth pass, counted from 1.
    fails_at_step: int | None = None
    _passes: int = 0

    def seconds(self, step: Step) -> float | None:
        self._passes += 1
        decode = len(step.tokens) == 1 and step.sample_at is not None
        compute = self.tpot if decode else len(step.tokens) / self.prefill_rate
        return None if self.fails_at_step == self._passes else self.overhead + compute


@dataclass(slots=True)
class Simulation:
    """Plays one generation to its end; afterwards `machine`, `shown` and `notices` tell what happened.

    `run` plays it alone. Of several on one `loop`, each is started by `start`, at the loop's time.
    """

    machine: GenerationMachine
    device: DeviceSide
    cloud: CloudSide
    #: Virtual seconds of the loop.
    cancel_at: float | None = None
    #: Virtual seconds after which a generation that has not ended is an error.
    limit: float = 600.0
    loop: EventLoop = field(default_factory=EventLoop)
    #: Called with each Done.
    ended: Callable[[Done], None] = lambda _: None
    #: Called after each input.
    after: Callable[[], None] = lambda: None
    shown: list[Show] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    grants: list[int] = field(default_factory=list)
    handovers: list[int] = field(default_factory=list)
    refinements: list[AnnounceRefinement] = field(default_factory=list)
    #: (began, ended, step) of each pass of the device that was not cancelled.
    passes: list[tuple[float, float, Step]] = field(default_factory=list)
    #: When the pass under way ends.
    pass_ends: float | None = None
    _step: int | None = None
    _tick_at: float = float("inf")
    _abandoned: bool = False

    @property
    def now(self) -> float:
        return self.loop.now

    @property
    def cache(self) -> list[int]:
        """The device's KV cache, as token ids. Raises RuntimeError where a pass was to follow what was not there."""
        cache: list[int] = []
        for _, _, step in self.passes:
            if step.keep > len(cache):
                raise RuntimeError(f"step {step.number} was to follow token {step.keep}; the cache held {len(cache)}")
            cache[step.keep :] = step.tokens
        return cache

    def run(self) -> Simulation:
        """Raises RuntimeError where the generation does not end within `limit`, or waits for nothing."""
        self.start()
        self.loop.run(lambda: self.machine.done, limit=self.limit)
        if not self.machine.done:
            raise RuntimeError("the generation waits for nothing and has not ended")
        return self

    def start(self) -> None:
        self.cloud.begin(self.loop, self.feed)
        self.feed(Submitted())
        if self.cancel_at is not None:
            self.loop.at(self.cancel_at, lambda: self.feed(CancelRequested()))

    def abandon(self) -> None:
        """Play it no further: what is still to come of it, on the loop or from the cloud, is let go."""
        self._abandoned = True

    def feed(self, event: Input) -> None:
        """Something happens to the generation now. After its end nothing does."""
        if self._abandoned:
            return
        for command in self.machine.handle(event, self.loop.now):
            self._perform(command)
        self.after()
        wakeup = self.machine.wakeup()
        if wakeup is not None and wakeup < self._tick_at:
            self._tick_at = wakeup
            self.loop.at(wakeup, self._tick, late=True)

    def _tick(self) -> None:
        if self._abandoned or self._tick_at > self.loop.now:
            return  # an earlier one was put in after this one and has come
        self._tick_at = float("inf")
        wakeup = self.machine.wakeup()
        if wakeup is not None and wakeup > self.loop.now:
            self._tick_at = wakeup
            self.loop.at(wakeup, self._tick, late=True)
        elif wakeup is not None:
            self.feed(Tick())

    def _perform(self, command: Command) -> None:
        match command:
            case Step():
                self._start_step(command)
            case CancelStep():
                self._step = self.pass_ends = None
            case AskCloud(grant=grant):
                self.grants.append(grant)
                self.cloud.ask(command)
            case ExtendCloud(grant=grant):
                self.grants.append(grant)
                self.cloud.extend(command)
            case StopCloud():
                self.cloud.stop(command)
            case TellProgress():
                pass
            case Show():
                self.shown.append(command)
            case AnnounceHandOver(index=index):
                self.handovers.append(index)
            case AnnounceRefinement():
                self.refinements.append(command)
            case Notify(kind=kind, message=message):
                self.notices.append(Notice(kind, message))
            case Done():
                self.done.append(command)
                self.ended(command)

    def _start_step(self, step: Step) -> None:
        if self._step is not None:
            raise RuntimeError("two steps at once")
        self._step = step.number
        began, seconds = self.loop.now, self.device.seconds(step)

        def finish() -> None:
            if self._step != step.number:
                return
            self._step = self.pass_ends = None
            if seconds is None:
                self.feed(DeviceFailed("the simulated engine broke"))
                return
            self.passes.append((began, self.loop.now, step))
            self.feed(self._result(step, seconds))

        self.pass_ends = began + (seconds or 0.0)
        self.loop.at(self.pass_ends, finish)

    def _result(self, step: Step, seconds: float) -> StepDone:
        known = step.output
        agreed = tuple(
            self.device.next_token(known[:index]) == token
            for index, token in enumerate(step.received, step.first_received)
        )
        sampled = None if step.sample_at is None else self.device.next_token(known)
        if step.sample_at is not None and sampled is None:
            sampled = next(iter(self._eos))
        return StepDone(step.number, agreed, sampled, seconds)

    @property
    def _eos(self) -> frozenset[int]:
        tokenizer = self.machine.tokenizer
        return tokenizer.eos_ids if tokenizer else frozenset()
