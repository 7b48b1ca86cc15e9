"""What the engine's thread does, step by step: take commands, seat who waits, run a pass, tell the listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from cloud_service.scheduler.estimates import Pace
from cloud_service.scheduler.generation import Generation, Halt
from cloud_service.scheduler.jobs import Carried, Ended, Event, Failed, HandedOver, Late, Listener
from cloud_service.scheduler.mailbox import Begin, Close, Drain, ExtendGrant, Leave, Mailbox, Reported, Resume
from cloud_service.scheduler.passes import PassGuard
from cloud_service.scheduler.policy import Costs, PassBudget, Share, Work, plan_pass
from cloud_service.scheduler.seats import Seat, Seats
from model_runtime.core import Cancellation, Chunk, Engine, Result
from model_runtime.errors import BadInputError, Cancelled, ConstraintError, EngineFailedError, UnsupportedError

logger = logging.getLogger(__name__)

#: After so many tokens of a pass their listeners are told.
TOLD_AT_ONCE = 64

PassObserver = Callable[[float, int, int], None]
#: As `policy.plan_pass`.
Plan = Callable[[Iterable[Work], PassBudget, Costs, float], Sequence[Share]]


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
        seats: Seats,
        *,
        mailbox: Mailbox,
        guard: PassGuard,
        clock: Callable[[], float],
        deliver: Callable[[list[tuple[Listener, Event]]], None],
        ended: Callable[[int], None],
        observe: PassObserver,
        plan: Plan = plan_pass,
    ) -> None:
        self.pace = Pace()
        #: When the pass under way began, on the clock; None between passes.
        self.pass_began: float | None = None
        self._engine = engine
        self._budget = budget
        self._places = places
        self._seats = seats
        self._mailbox = mailbox
        self._guard = guard
        self._clock = clock
        self._deliver = deliver
        self._ended = ended
        self._observe = observe
        self._plan = plan
        self._waiting: list[Generation] = []
        self._seated: dict[int, Generation] = {}
        self._events: list[tuple[Listener, Event]] = []
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
            works = (generation.work for generation in self._seated.values() if generation.runs)
            shares = self._plan(works, self._budget, self.pace.costs, self._clock())
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
                self._waiting.append(generation)
            case ExtendGrant(key, grant):
                extended = self._find(key)
                if extended is not None:
                    self._extend(extended, grant)
            case Reported(key, report):
                reporting = self._find(key)
                if reporting is not None:
                    reporting.report = report
            case Leave(key, tell):
                self._guard.forget(key)
                left = self._find(key)
                if left is not None:
                    self._end(left, Ended("stopped", left.usage) if tell else None)
            case Resume(key):
                back = self._find(key)
                if back is not None:
                    back.resume()
            case Drain():
                self._draining = True
            case Close():
                self._open = False
                for generation in [*self._waiting, *self._seated.values()]:
                    self._end(generation, Failed("internal", "the service shuts down", retriable=True))

    def _extend(self, generation: Generation, grant: int) -> None:
        """As far as there is room: what others were promised is theirs."""
        if generation.seat is not None:
            # What the context cannot hold needs no room: the answer then ends by `context`.
            wanted = min(generation.begins_at + grant, generation.context_length)
            got = self._seats.grow(generation.seat, wanted)
            if got < wanted:
                grant = got - generation.begins_at
        generation.extend(grant)
        if generation.halt is None:
            generation.linger_until = None

    def _find(self, key: int) -> Generation | None:
        return self._seated.get(key) or next((g for g in self._waiting if g.key == key), None)

    # --- who takes part -----------------------------------------------------------------------------------------

    def _patience(self) -> float | None:
        """How long there is nothing to do but to wait for a command, in seconds; None for ever."""
        if any(generation.runs for generation in self._seated.values()):
            return 0.0
        times = [g.linger_until for g in self._seated.values() if g.linger_until is not None]
        if self._waiting and (times or len(self._seated) < self._places):
            return 0.0  # one of them can be seated now: whoever sits has ended, or will end for it
        times += [g.job.deadline for g in self._waiting if g.job.deadline is not None]
        return max(0.0, min(times) - self._clock()) if times else None

    def _end_what_is_due(self) -> None:
        now = self._clock()
        # Nearly all are in the middle of their answer, and every pass looks at all of them.
        perhaps = [g for g in self._seated.values() if g.halt is not None or not g.given]
        for generation in [*perhaps, *self._waiting]:
            deadline = generation.job.deadline
            if generation.halt is not None:
                self._halt(generation, generation.halt, now)
            elif deadline is not None and self._first_token_at(generation, now) > deadline:
                self._end(generation, Late())

    def _first_token_at(self, generation: Generation, now: float) -> float:
        """The earliest time, if it had the engine to itself from now on."""
        return now + generation.to_prefill * self.pace.prefill_s

    def _halt(self, generation: Generation, halt: Halt, now: float) -> None:
        """End a generation that can give no more tokens, unless its used-up grant is still held open.

        An empty grant has nothing in the engine that would be worth holding.
        """
        if halt == "grant" and generation.given and not self._draining:
            if generation.linger_until is None:
                generation.linger_until = now + generation.job.linger
            if now < generation.linger_until:
                return
        self._end(generation, Ended(halt, generation.usage))

    def _seat(self) -> None:
        """Whoever is due first, as long as there is a place and room for all that it may become. Nobody who needs
        less passes by: a long prompt would wait for ever."""
        while self._waiting:
            generation = min(self._waiting, key=lambda waiting: (waiting.due, waiting.key))
            seat = None
            if len(self._seated) < self._places:
                seat = self._seat_for(generation)
            if seat is None:
                lingering = [g for g in self._seated.values() if g.linger_until is not None]
                if not lingering:
                    return
                oldest = min(lingering, key=lambda g: g.linger_until or 0.0)
                self._end(oldest, Ended("grant", oldest.usage))
                continue
            generation.sit(seat)
            self._waiting.remove(generation)
            self._seated[generation.key] = generation

    def _seat_for(self, generation: Generation) -> Seat | None:
        scope, reserve, carried = generation.job.scope, generation.reserve, generation.carried
        seat = None if carried is None else self._seats.adopt(carried.kv, scope, reserve=reserve)
        # KV that cannot be used costs a prefill, and no more.
        return seat or self._seats.take(generation.tokens[: generation.reusable], scope, reserve=reserve)

    # --- the pass -----------------------------------------------------------------------------------------------

    def _perform(self, shares: Sequence[Share]) -> None:
        parts = [(self._seated[share.key], share.tokens) for share in shares]
        for generation, _ in parts:
            if not generation.given and generation.fed == generation.cached:
                generation.spent.queued = self._clock() - generation.arrived
        chunks = [generation.chunk(count) for generation, count in parts]
        cancellation = self._guard.begin([share.key for share in shares])
        started = self.pass_began = self._clock()
        try:
            results = self._forward(chunks, cancellation)
        except Cancelled:
            self._observe(self._clock() - started, 0, 0)
            return
        finally:
            self._guard.end()
            self.pass_began = None
        seconds = self._clock() - started
        seconds_per_token = seconds / sum(count for _, count in parts)
        self._account(parts, seconds)
        for (generation, count), chunk, result in zip(parts, chunks, results, strict=True):
            if isinstance(result, BadInputError):
                logger.error("the engine refused a chunk", extra={"generation": generation.job.name})
                self._end(generation, Failed("internal", f"the engine refused a chunk: {result}", retriable=True))
                continue
            seen = generation.fed_tokens(chunk, result, seconds_per_token * count)
            if seen is not None:
                self._events.append((generation.listener, seen))
                self._flush()  # a scorer begins before the first token is sampled
            if generation.halt is None and generation.pending == 0:
                self._sample(generation, result)
                if len(self._events) >= TOLD_AT_ONCE:
                    self._flush()  # they are on their way while the others are sampled
            if generation.halt is not None:
                self._halt(generation, generation.halt, self._clock())
        self._hand_over([generation for generation, _ in parts if generation.can_move])

    def _hand_over(self, generations: Sequence[Generation]) -> None:
        if generations:
            self._flush()  # what is to be shown does not wait for what is to be moved
        for generation in generations:
            if generation.seat is None or generation.key not in self._seated:
                continue
            try:
                kv = self._engine.export_kv(generation.seat.sequence)
            except BadInputError as error:
                logger.warning("KV cannot be handed over: %s", error, extra={"generation": generation.job.name})
                continue
            generation.hand_over()
            self._events.append((generation.listener, HandedOver(Carried(kv, generation.fed), generation.usage)))

    def _forward(self, chunks: Sequence[Chunk], cancellation: Cancellation) -> list[Result | BadInputError]:
        """One pass; where the engine refuses it, chunk by chunk, so that a refusal meets only whom it is about."""
        try:
            return list(self._engine.forward(chunks, cancellation))
        except BadInputError:
            return [self._forward_alone(chunk, cancellation) for chunk in chunks]

    def _forward_alone(self, chunk: Chunk, cancellation: Cancellation) -> Result | BadInputError:
        try:
            return self._engine.forward([chunk], cancellation)[0]
        except UnsupportedError as error:
            if chunk.tap is None:
                return error
            # A sequence that cannot be looked at can still be answered.
            return self._forward_alone(Chunk(chunk.sequence, chunk.tokens, chunk.logits), cancellation)
        except BadInputError as error:
            return error

    def _account(self, parts: Sequence[tuple[Generation, int]], seconds: float) -> None:
        decode = prefill = 0
        for generation, count in parts:
            if generation.given:
                decode += count
            else:
                prefill += count
        self.pace.observe(seconds, prefill, decode)
        self._observe(seconds, prefill, decode)

    def _sample(self, generation: Generation, result: Result) -> None:
        try:
            emitted = generation.sample(result.logits[-1], self._clock())
        except EngineFailedError as error:
            self._end(generation, Failed("engine", str(error), retriable=True))
            return
        except ConstraintError as error:
            self._end(generation, Failed("bad_request", str(error), retriable=False))
            return
        except Exception:
            # A request that makes sampling itself fail must not end the other generations.
            logger.exception("sampling failed", extra={"generation": generation.job.name})
            self._end(generation, Failed("internal", "sampling failed", retriable=False))
            return
        if emitted is not None:
            self._events.append((generation.listener, emitted))

    # --- the end ------------------------------------------------------------------------------------------------

    def _end(self, generation: Generation, event: Ended | Late | Failed | None, *, engine_usable: bool = True) -> None:
        """The only way out: frees the sequence and tells the listener its terminal event, if it wants one."""
        if generation.seat is None:
            self._waiting.remove(generation)
        else:
            del self._seated[generation.key]
        self._ended(generation.key)
        if isinstance(event, Ended) and (rest := generation.end()) is not None:
            self._events.append((generation.listener, rest))
        if event is not None:
            self._events.append((generation.listener, event))
        # Last, as an engine that breaks here must not keep the listener from its terminal event.
        if generation.seat is not None and engine_usable:
            self._seats.leave(generation.seat, generation.tokens[: generation.fed])

    def _flush(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._deliver(events)
