"""A cloud in virtual time: what a generation hears of it, with speeds and faults. One generation has it to itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from device_sdk.generation.commands import AskCloud, ExtendCloud, StopCloud
from device_sdk.generation.inputs import (
    CloudFinished,
    CloudLost,
    CloudRefused,
    CloudText,
    CloudTokens,
    Input,
    LinkUp,
    Refined,
)
from device_sdk.generation.spans import Spans
from device_sdk.report import Guard
from device_sdk.testing.virtual_time import EventLoop

#: The next token after the output so far; None ends the answer.
NextToken = Callable[[Sequence[int]], int | None]


class CloudSide(Protocol):
    """What a simulated generation tells the cloud; what it hears comes through `feed`, a link later."""

    def begin(self, loop: EventLoop, feed: Callable[[Input], None]) -> None:
        """Once, before anything else."""

    def ask(self, command: AskCloud) -> None: ...
    def extend(self, command: ExtendCloud) -> None: ...
    def stop(self, command: StopCloud) -> None: ...


@dataclass(slots=True)
class Served:
    """One attempt at the cloud."""

    number: int
    grant: int
    output: list[int]
    given: int = 0
    stopped: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class SimulatedRefinement:
    """Leaves the cloud `after` seconds after a `generate` that asks for one left the device."""

    after: float
    #: Tokens of the device's prompt.
    keep: Spans
    stage: int = 1
    final: bool = True
    guard: Guard = field(default_factory=lambda: Guard("passed"))


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
    #: In any order, fitting or not: what a service may send.
    refinements: Sequence[SimulatedRefinement] = ()
    #: The latest attempt, and all tokens made so far.
    served: Served | None = None
    tokens_made: int = 0
    _loop: EventLoop = field(default_factory=EventLoop)
    _feed: Callable[[Input], None] = lambda _: None

    def begin(self, loop: EventLoop, feed: Callable[[Input], None]) -> None:
        self._loop, self._feed = loop, feed

    def ask(self, command: AskCloud) -> None:
        served = self.served = Served(command.attempt, command.grant, list(command.output or ()))
        faulty = command.attempt <= self.faulty_attempts
        self._tell(self.link, LinkUp(2 * self.link))
        if self.refuses:
            self._tell(2 * self.link, CloudRefused(served.number, "busy", None))
        elif faulty and self.lost_after == 0:
            self._lose(served, 2 * self.link)
        else:
            self._after(self.ttft, lambda: self._produce(served))
            for one in self.refinements if command.refine else ():
                refined = Refined(command.attempt, one.stage, one.final, one.keep, one.guard)
                self._tell(one.after + self.link, refined)

    def extend(self, command: ExtendCloud) -> None:
        served = self.served

        def hear() -> None:
            if served is None or served.closed or served.number != command.attempt:
                return
            waiting = served.given >= served.grant
            served.grant = max(served.grant, command.grant)
            if waiting and served.given < served.grant:
                self._produce(served)

        self._after(self.link, hear)

    def stop(self, command: StopCloud) -> None:
        served = self.served

        def hear() -> None:
            if served is None or served.closed or served.number != command.attempt:
                return
            served.stopped = True
            if served.given >= served.grant:
                self._close(served, "stopped")

        self._after(self.link, hear)

    # --- inside --------------------------------------------------------------------------------------------------

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        self._loop.at(self._loop.now + seconds, happen)

    def _tell(self, seconds: float, event: Input) -> None:
        self._after(seconds, lambda: self._feed(event))

    def _lose(self, served: Served, seconds: float) -> None:
        def lose() -> None:
            served.closed = True
            self._feed(CloudLost(served.number, "the simulated link broke", True))

        self._after(seconds, lose)

    def _produce(self, served: Served) -> None:
        """The cloud makes one token; it arrives a link later."""
        if served.closed:
            return
        faulty = served.number <= self.faulty_attempts
        if faulty and self.silent_after is not None and served.given >= self.silent_after:
            return
        if served.stopped:
            self._close(served, "stopped")
            return
        if served.given >= served.grant:
            held = served.given
            self._after(self.linger, lambda: self._give_up(served, held))
            return
        token = self.next_token(served.output)
        if token is None:
            self._close(served, "eos")
            return
        self._tell(self.link, self._message(served, token))
        served.output.append(token)
        served.given += 1
        self.tokens_made += 1
        if faulty and self.lost_after == served.given:
            self._lose(served, self.link)
        else:
            self._after(self.tpot, lambda: self._produce(served))

    def _message(self, served: Served, token: int) -> Input:
        if self.as_text is not None:
            return CloudText(served.number, served.given, 1, self.as_text(token))
        return CloudTokens(served.number, served.given, (token,))

    def _give_up(self, served: Served, held: int) -> None:
        if not served.closed and served.given == held:
            self._close(served, "grant")

    def _close(self, served: Served, reason: str) -> None:
        served.closed = True
        busy = 1000 * (self.ttft + served.given * self.tpot)
        self._tell(self.link, CloudFinished(served.number, reason, busy))  # type: ignore[arg-type]
