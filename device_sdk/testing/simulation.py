"""A generation in virtual time: the shipping state machine against a simulated device and cloud.

For tests of anything that paces, grants or falls back, and for a first look at settings: a second of an answer takes
about a millisecond. Each side is a function from the output so far to its next token, with speeds and faults.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from device_sdk.events import Notice
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
from device_sdk.generation.inputs import (
    CancelRequested,
    CloudFinished,
    CloudLost,
    CloudRefused,
    CloudText,
    CloudTokens,
    DeviceFailed,
    Input,
    LinkUp,
    StepDone,
    Submitted,
    Tick,
)
from device_sdk.generation.machine import GenerationMachine

#: The next token after the output so far; None ends the answer.
NextToken = Callable[[Sequence[int]], int | None]


@dataclass(slots=True)
class SimulatedDevice:
    """Seconds: a pass of n tokens takes `overhead + n / prefill_rate`, a decode step `tpot`."""

    next_token: NextToken
    prefill_rate: float = 1_000.0
    tpot: float = 0.040
    overhead: float = 0.0
    #: The engine breaks in its nth pass, counted from 1.
    fails_at_step: int | None = None


@dataclass(slots=True)
class SimulatedCloud:
    """Seconds after `generate` left the device; `link` is one way."""

    next_token: NextToken
    ttft: float = 0.100
    tpot: float = 0.012
    link: float = 0.020
    refuses: bool = False
    #: The link breaks after so many tokens were delivered in an attempt; 0: before the first.
    lost_after: int | None = None
    #: It falls silent instead.
    silent_after: int | None = None
    #: Attempts that are lost or silent; later ones are served.
    faulty_attempts: int = 1
    #: Travels as text: each token's bytes by this function.
    as_text: Callable[[int], bytes] | None = None
    #: Seconds that the closing word is held back for an extension.
    linger: float = 0.3


@dataclass(slots=True)
class _Served:
    """One attempt at the cloud."""

    number: int
    grant: int
    output: list[int]
    given: int = 0
    stopped: bool = False
    closed: bool = False


@dataclass(slots=True)
class Simulation:
    """`run` plays one generation to its end; afterwards `machine`, `shown` and `notices` tell what happened."""

    machine: GenerationMachine
    device: SimulatedDevice
    cloud: SimulatedCloud
    cancel_at: float | None = None
    #: Virtual seconds after which a generation that has not ended is an error.
    limit: float = 600.0
    now: float = 0.0
    shown: list[Show] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    grants: list[int] = field(default_factory=list)
    handovers: list[int] = field(default_factory=list)
    cloud_tokens_made: int = 0
    _heap: list[tuple[float, int, Callable[[], Input | None]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _steps: int = 0
    _step: int | None = None
    _served: _Served | None = None

    def run(self) -> Simulation:
        """Raises RuntimeError where the generation does not end within `limit`, or asks for what cannot be."""
        self._feed(Submitted())
        if self.cancel_at is not None:
            self._at(self.cancel_at, CancelRequested)
        before, idle_turns = self.now, 0
        while not self.machine.done:
            idle_turns = idle_turns + 1 if self.now == before else 0
            before = self.now
            if idle_turns > 10_000:
                raise RuntimeError(f"the generation turns without getting on, at {self.now:g} s")
            wakeup = self.machine.wakeup()
            if self._heap and (wakeup is None or self._heap[0][0] <= wakeup):
                self.now, _, happen = heapq.heappop(self._heap)
                event = happen()
                if event is not None:
                    self._feed(event)
            elif wakeup is not None:
                self.now = max(self.now, wakeup)
                self._feed(Tick())
            else:
                raise RuntimeError("the generation waits for nothing and has not ended")
            if self.now > self.limit:
                raise RuntimeError(f"the generation has not ended after {self.limit:g} s")
        return self

    def _at(self, time: float, happen: Callable[[], Input | None]) -> None:
        heapq.heappush(self._heap, (time, next(self._order), happen))

    def _feed(self, event: Input) -> None:
        for command in self.machine.handle(event, self.now):
            self._perform(command)

    def _perform(self, command: Command) -> None:
        match command:
            case Step():
                self._start_step(command)
            case CancelStep():
                self._step = None
            case AskCloud():
                self._ask(command)
            case ExtendCloud() | StopCloud():
                served = self._served
                if isinstance(command, ExtendCloud):
                    self.grants.append(command.grant)
                self._at(self.now + self.cloud.link, lambda: self._hear(served, command))
            case TellProgress():
                pass
            case Show():
                self.shown.append(command)
            case AnnounceHandOver(index=index):
                self.handovers.append(index)
            case Notify(kind=kind, message=message):
                self.notices.append(Notice(kind, message))
            case Done():
                self.done.append(command)

    # --- the device ----------------------------------------------------------------------------------------------

    def _start_step(self, step: Step) -> None:
        if self._step is not None:
            raise RuntimeError("two steps at once")
        self._step = step.number
        self._steps += 1
        decode = len(step.tokens) == 1 and step.sample_at is not None
        compute = self.device.tpot if decode else len(step.tokens) / self.device.prefill_rate
        seconds = self.device.overhead + compute
        fails = self.device.fails_at_step == self._steps
        self._at(self.now + seconds, lambda: self._finish_step(step, seconds, fails))

    def _finish_step(self, step: Step, seconds: float, fails: bool) -> Input | None:
        if self._step != step.number:
            return None
        self._step = None
        if fails:
            return DeviceFailed("the simulated engine broke")
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

    # --- the cloud -----------------------------------------------------------------------------------------------

    def _ask(self, command: AskCloud) -> None:
        served = self._served = _Served(command.attempt, command.grant, list(command.output or ()))
        self.grants.append(command.grant)
        faulty = command.attempt <= self.cloud.faulty_attempts
        self._at(self.now + self.cloud.link, lambda: LinkUp(2 * self.cloud.link))
        if self.cloud.refuses:
            self._at(self.now + 2 * self.cloud.link, lambda: CloudRefused(served.number, "busy", None))
        elif faulty and self.cloud.lost_after == 0:
            self._at(self.now + 2 * self.cloud.link, lambda: self._lose(served))
        else:
            self._at(self.now + self.cloud.ttft, lambda: self._produce(served))

    def _lose(self, served: _Served) -> Input:
        served.closed = True
        return CloudLost(served.number, "the simulated link broke", True)

    def _produce(self, served: _Served) -> Input | None:
        """The cloud makes one token; it arrives a link later."""
        if served.closed:
            return None
        faulty = served.number <= self.cloud.faulty_attempts
        if faulty and self.cloud.silent_after is not None and served.given >= self.cloud.silent_after:
            return None
        if served.stopped:
            return self._close(served, "stopped")
        if served.given >= served.grant:
            held = served.given
            self._at(self.now + self.cloud.linger, lambda: self._give_up(served, held))
            return None
        token = self.cloud.next_token(served.output)
        if token is None:
            return self._close(served, "eos")
        first = served.given
        served.output.append(token)
        served.given += 1
        self.cloud_tokens_made += 1
        self._at(self.now + self.cloud.link, lambda: self._deliver(served, first, token))
        if faulty and self.cloud.lost_after == served.given:
            self._at(self.now + self.cloud.link, lambda: self._lose(served))
        else:
            self._at(self.now + self.cloud.tpot, lambda: self._produce(served))
        return None

    def _give_up(self, served: _Served, held: int) -> Input | None:
        return None if served.closed or served.given != held else self._close(served, "grant")

    def _deliver(self, served: _Served, first: int, token: int) -> Input:
        if self.cloud.as_text is not None:
            return CloudText(served.number, first, 1, self.cloud.as_text(token))
        return CloudTokens(served.number, first, (token,))

    def _close(self, served: _Served, reason: str) -> Input | None:
        served.closed = True
        busy = 1000 * (self.cloud.ttft + served.given * self.cloud.tpot)
        finished = CloudFinished(served.number, reason, busy)  # type: ignore[arg-type]
        self._at(self.now + self.cloud.link, lambda: finished)
        return None

    def _hear(self, served: _Served | None, word: ExtendCloud | StopCloud) -> Input | None:
        if served is None or served.closed or served.number != word.attempt:
            return None
        if isinstance(word, ExtendCloud):
            waiting = served.given >= served.grant
            served.grant = max(served.grant, word.grant)
            return self._produce(served) if waiting and served.given < served.grant else None
        waiting = served.given >= served.grant
        served.stopped = True
        return self._close(served, "stopped") if waiting else None
