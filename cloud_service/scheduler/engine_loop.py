"""What the engine's thread does, step by step: take commands, seat who waits, run a pass, tell the listeners."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from cloud_service.scheduler.estimates import Pace
from cloud_service.scheduler.generation import Generation
from cloud_service.scheduler.jobs import Ended, Event, Failed, Late, Listener
from cloud_service.scheduler.mailbox import Begin, Close, Drain, ExtendGrant, Leave, Mailbox
from cloud_service.scheduler.passes import PassGuard
from cloud_service.scheduler.policy import PassBudget, Share, plan_pass
from model_runtime.core import Cancellation, Chunk, Engine, Result
from model_runtime.errors import BadInputError, Cancelled, EngineFailedError

logger = logging.getLogger(__name__)

PassObserver = Callable[[float, int, int], None]


class EngineLoop:
    """Owns the engine: nothing else calls it. Every method but the constructor runs on one thread.

    `deliver` gets the events of a step at once, in order; `ended` is told the key of each generation that is gone,
    before its terminal event is delivered. `observe` gets (seconds, prefill tokens, decode tokens) of each pass.
    """

    def __init__(
        self,
        engine: Engine,
        budget: PassBudget,
        places: int,
        *,
        mailbox: Mailbox,
        guard: PassGuard,
        clock: Callable[[], float],
        deliver: Callable[[list[tuple[Listener, Event]]], None],
        ended: Callable[[int], None],
        observe: PassObserver,
    ) -> None:
        self.pace = Pace()
        self._engine = engine
        self._budget = budget
        self._places = places
        self._mailbox = mailbox
        self._guard = guard
        self._clock = clock
        self._deliver = deliver
        self._ended = ended
        self._observe = observe
        self._waiting: deque[Generation] = deque()
        self._seated: dict[int, Generation] = {}
        self._events: list[tuple[Listener, Event]] = []
        self._passes = 0
        self._draining = False
        self._open = True

    def run(self) -> None:
        """Until closed. Raises what the engine raises when it breaks; the generations are then still here."""
        while self._open:
            self.step(self._mailbox.take(self._patience()))

    def step(self, commands: Iterable[object]) -> None:
        """Perform `commands`, run one pass if there is work, deliver what comes of either."""
        try:
            for command in commands:
                self._apply(command)
            self._end_what_is_due()
            self._seat()
            shares = plan_pass((g.work for g in self._seated.values() if g.halt is None), self._budget)
            if shares:
                self._flush()  # who has ended already does not wait for the pass
                self._perform(shares)
        finally:
            self._flush()

    def fail(self, message: str) -> None:
        """The engine broke: end every generation."""
        for generation in [*self._waiting, *self._seated.values()]:
            self._end(generation, Failed("engine", message, retriable=True), engine_usable=False)
        self._flush()

    # --- commands -----------------------------------------------------------------------------------------------

    def _apply(self, command: object) -> None:
        match command:
            case Begin(generation):
                generation.last_pass = self._passes
                self._waiting.append(generation)
            case ExtendGrant(key, grant):
                extended = self._find(key)
                if extended is not None:
                    extended.extend(grant)
                    if extended.halt is None:
                        extended.linger_until = None
            case Leave(key, tell):
                self._guard.forget(key)
                left = self._find(key)
                if left is not None:
                    self._end(left, Ended("stopped", left.usage) if tell else None)
            case Drain():
                self._draining = True
            case Close():
                self._open = False
                for generation in [*self._waiting, *self._seated.values()]:
                    self._end(generation, Failed("internal", "the service shuts down", retriable=True))

    def _find(self, key: int) -> Generation | None:
        return self._seated.get(key) or next((g for g in self._waiting if g.key == key), None)

    # --- who takes part -----------------------------------------------------------------------------------------

    def _patience(self) -> float | None:
        """How long there is nothing to do but to wait for a command, in seconds; None for ever."""
        if any(generation.halt is None for generation in self._seated.values()):
            return 0.0
        times = [g.linger_until for g in self._seated.values() if g.linger_until is not None]
        if self._waiting and (times or len(self._seated) < self._places):
            return 0.0
        times += [g.job.deadline for g in self._waiting if g.job.deadline is not None]
        return max(0.0, min(times) - self._clock()) if times else None

    def _end_what_is_due(self) -> None:
        now = self._clock()
        for generation in [*self._seated.values(), *self._waiting]:
            deadline = generation.job.deadline
            if generation.halt is not None:
                self._halt(generation, now)
            elif deadline is not None and generation.given == 0 and self._first_token_at(generation, now) > deadline:
                self._end(generation, Late())

    def _first_token_at(self, generation: Generation, now: float) -> float:
        """The earliest time, if it had the engine to itself from now on."""
        return now + generation.pending * self.pace.prefill_s

    def _halt(self, generation: Generation, now: float) -> None:
        """End a generation that can give no more tokens, unless its used-up grant is still held open.

        An empty grant has nothing in the engine that would be worth holding.
        """
        if generation.halt is None:
            return
        if generation.halt == "grant" and generation.given and not self._draining:
            if generation.linger_until is None:
                generation.linger_until = now + generation.job.linger
            if now < generation.linger_until:
                return
        self._end(generation, Ended(generation.halt, generation.usage))

    def _seat(self) -> None:
        while self._waiting:
            if len(self._seated) >= self._places:
                lingering = [g for g in self._seated.values() if g.linger_until is not None]
                if not lingering:
                    return
                oldest = min(lingering, key=lambda g: g.linger_until or 0.0)
                self._end(oldest, Ended("grant", oldest.usage))
            generation = self._waiting[0]
            generation.sequence = self._engine.open()
            self._waiting.popleft()
            self._seated[generation.key] = generation

    # --- the pass -----------------------------------------------------------------------------------------------

    def _perform(self, shares: Sequence[Share]) -> None:
        parts = [(self._seated[share.key], share.tokens) for share in shares]
        for generation, _ in parts:
            if generation.fed == 0:
                generation.spent.queued = self._clock() - generation.arrived
        chunks = [generation.chunk(count) for generation, count in parts]
        cancellation = self._guard.begin([generation.key for generation, _ in parts])
        started = self._clock()
        try:
            results = self._forward(chunks, cancellation)
        except Cancelled:
            self._observe(self._clock() - started, 0, 0)
            return
        finally:
            self._guard.end()
            self._passes += 1
        seconds = self._clock() - started
        seconds_per_token = seconds / sum(count for _, count in parts)
        self._account(parts, seconds)
        for (generation, count), result in zip(parts, results, strict=True):
            generation.last_pass = self._passes
            if isinstance(result, BadInputError):
                logger.error("the engine refused a chunk", extra={"generation": generation.job.name})
                self._end(generation, Failed("internal", f"the engine refused a chunk: {result}", retriable=True))
                continue
            generation.fed_tokens(count, seconds_per_token * count)
            if generation.pending == 0:
                self._sample(generation, result)

    def _forward(self, chunks: Sequence[Chunk], cancellation: Cancellation) -> list[Result | BadInputError]:
        """One pass; where the engine refuses it, chunk by chunk, so that a refusal meets only whom it is about."""
        try:
            return list(self._engine.forward(chunks, cancellation))
        except BadInputError:
            results: list[Result | BadInputError] = []
            for chunk in chunks:
                try:
                    results += self._engine.forward([chunk], cancellation)
                except BadInputError as error:
                    results.append(error)
            return results

    def _account(self, parts: Sequence[tuple[Generation, int]], seconds: float) -> None:
        decode = sum(count for generation, count in parts if generation.given)
        prefill = sum(count for generation, count in parts if not generation.given)
        self.pace.observe(seconds, prefill, decode)
        self._observe(seconds, prefill, decode)

    def _sample(self, generation: Generation, result: Result) -> None:
        try:
            emitted = generation.sample(result.logits[-1])
        except EngineFailedError as error:
            self._end(generation, Failed("engine", str(error), retriable=True))
            return
        except Exception:
            # A request that makes sampling itself fail must not end the other generations.
            logger.exception("sampling failed", extra={"generation": generation.job.name})
            self._end(generation, Failed("internal", "sampling failed", retriable=False))
            return
        if emitted is not None:
            self._events.append((generation.listener, emitted))
        self._halt(generation, self._clock())

    # --- the end ------------------------------------------------------------------------------------------------

    def _end(self, generation: Generation, event: Ended | Late | Failed | None, *, engine_usable: bool = True) -> None:
        """The only way out: frees the sequence and tells the listener its terminal event, if it wants one."""
        if generation.sequence is None:
            self._waiting.remove(generation)
        else:
            del self._seated[generation.key]
        self._ended(generation.key)
        if isinstance(event, Ended) and (rest := generation.end()) is not None:
            self._events.append((generation.listener, rest))
        if event is not None:
            self._events.append((generation.listener, event))
        # Last, as an engine that breaks here must not keep the listener from its terminal event.
        if generation.sequence is not None and engine_usable:
            self._engine.close(generation.sequence)

    def _flush(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._deliver(events)
