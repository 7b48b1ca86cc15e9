"""Who does what: offers generations to instances, forwards what they reject, moves what they hand over or leave behind.

An instance has no queue. Who finds no place waits here, in the order in which first tokens are due, and is offered
again wherever something has changed, until its deadline. Nobody who needs less passes by at an instance that has turned
away someone who is due earlier: a long prompt would wait for ever.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from typing import Protocol

from cloud_service.pool import frames
from cloud_service.pool.assignment import Assignment, Leg
from cloud_service.pool.instance import Instance
from cloud_service.pool.metrics import PoolMetrics, labels
from cloud_service.pool.phases import Phases
from cloud_service.pool.placement import to_begin, to_take_over
from cloud_service.pool.retry import Departures, retry_after
from cloud_service.scheduler.jobs import Ended, Event, Failed, Late, Refusal, Refused

logger = logging.getLogger(__name__)


class Timer(Protocol):
    def cancel(self) -> None: ...


class Later(Protocol):
    """As `asyncio.AbstractEventLoop.call_later`."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


#: Seconds in which an answer that its instance left behind must find another one; the device has gone on by then.
RECOVERY = 5.0
#: An answer that so many instances died with is not given to another one: it may be what kills them.
MOST_DEATHS = 2


class Dispatcher:
    """Belongs to one event loop. Every assignment ends in exactly one terminal event, unless it is dropped."""

    def __init__(
        self,
        instances: list[Instance],
        metrics: PoolMetrics,
        phases: Phases,
        queue_depth: int,
        ended: Callable[[Assignment], None],
        later: Later,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`queue_depth`: so many may wait for a place. `ended` is told of each assignment that is over, before its
        listener is. `later` calls something in so many seconds, never on the stack of who asks for it."""
        self.waiting: list[Assignment] = []
        self._instances = instances
        self._metrics = metrics
        self._phases = phases
        self._queue_depth = queue_depth
        self._ended = ended
        self._later = later
        self._clock = clock
        self._departures = Departures()
        self._keys = itertools.count()

    # --- from the service ---------------------------------------------------------------------------------------

    def begin(self, assignment: Assignment) -> None:
        """Never calls its listener on this call's stack."""
        deadline = assignment.job.deadline
        if deadline is not None:
            assignment.timer = self._later(max(0.0, deadline - self._clock()), lambda: self._too_late(assignment))
        self.waiting.append(assignment)
        self.dispatch()

    def extend(self, assignment: Assignment, grant: int) -> None:
        assignment.grant = max(assignment.grant, grant)
        for leg in assignment.legs:
            leg.instance.say(frames.Extend(leg.key, assignment.grant - leg.first))

    def stop(self, assignment: Assignment) -> None:
        """The listener gets `Ended("stopped")` soon, unless it ends otherwise first."""
        leg = assignment.leg
        if leg is not None and leg.took:
            assignment.ending = assignment.ending or "stopped"
            if assignment.heir is not None:
                self._drop(assignment.heir)
            leg.instance.say(frames.Leave(leg.key))
        else:
            self._later(0.0, lambda: self._finish_as(assignment, "stopped"))

    def drop(self, assignment: Assignment) -> None:
        """Nobody listens any more."""
        self._close(assignment)
        self.dispatch()

    def fail(self, assignment: Assignment, event: Failed) -> None:
        self._finish(assignment, event)

    # --- who gets what ------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Offer what waits to whoever may accept it now."""
        blocked: set[int] = set()
        for assignment in sorted(self.waiting, key=lambda each: (each.due, each.key)):
            choice = self._choose(assignment, blocked)
            if choice is None:
                blocked |= {each.number for each in self._instances if self._rejected(assignment, each)}
            else:
                self.waiting.remove(assignment)
                assignment.leg = self._offer(assignment, choice)

    def busy(self, assignment: Assignment | None) -> Refusal:
        """For one that finds too many others waiting."""
        others = len(self.waiting) - (assignment in self.waiting)
        wait = self.retry_after(assignment)
        text = f"no instance has a place, and {others} generations wait for one already"
        return Refusal("busy", text, None if wait is None else wait * 1000)

    def retry_after(self, assignment: Assignment | None) -> float | None:
        """Seconds after which a newcomer, or this one, would probably be accepted."""
        hints = [] if assignment is None else [hint for _, hint in assignment.turned_away.values()]
        return retry_after(hints, len(self.waiting), self._departures.interval(self._clock()))

    def _ready(self) -> list[Instance]:
        return [instance for instance in self._instances if instance.ready]

    def _rejected(self, assignment: Assignment, instance: Instance) -> bool:
        return assignment.turned_away.get(instance.number, (-1, None))[0] == instance.epoch

    def _choose(self, assignment: Assignment, blocked: set[int]) -> Instance | None:
        ready = {each.number: each for each in self._ready()}
        ranked = to_begin(each.candidate(each.remembered.tokens(assignment.keys)) for each in ready.values())
        able = (ready[each.instance] for each in ranked if each.instance not in blocked)
        return next((each for each in able if not self._rejected(assignment, each)), None)

    def _heirs(self, source: Instance) -> list[Instance]:
        """Who may take over from `source`, the best first."""
        ready = {each.number: each for each in self._ready() if each is not source}
        return [ready[each.instance] for each in to_take_over(each.candidate(0) for each in ready.values())]

    def _offer(self, assignment: Assignment, instance: Instance, origin: frames.Handed | None = None) -> Leg:
        leg = Leg(
            next(self._keys),
            instance,
            assignment,
            first=assignment.given,
            backlog=len(assignment.job.prompt) if origin is None else 1,
            epoch=instance.epoch,
            origin=origin,
            since=self._clock(),
        )
        hands_over = instance.role == "prefill" and bool(self._heirs(instance))
        segment = None if origin is None else origin.segment
        instance.legs[leg.key] = leg
        instance.say(frames.Offer(leg.key, assignment.rest(hands_over=hands_over), segment))
        return leg

    # --- from the instances -------------------------------------------------------------------------------------

    def hear(self, instance: Instance, frame: frames.FromEngine) -> None:
        match frame:
            case frames.Gave(parts):
                for key, ids in parts:
                    giving = instance.legs.get(key)
                    if giving is None:
                        continue
                    try:
                        self._gave(giving, ids)
                    except Exception:  # one listener's fault must not cost another one its tokens
                        logger.exception("a listener failed")
                return
            case frames.Took(key) | frames.TurnedAway(key) | frames.Showed(key):
                pass
            case frames.Handed(key) | frames.Over(key):
                pass
            case frames.State() if self.waiting:
                # What makes room without a word, such as a prompt that is half read.
                self._changed(instance)
                return
            case _:
                return
        leg = instance.legs.get(key)
        if leg is None:  # it was told to leave
            if isinstance(frame, frames.Over):
                self._freed(instance)
            return
        match frame:
            case frames.Took():
                self._took(leg)
            case frames.TurnedAway(_, refusal):
                self._turned_away(leg, refusal)
            case frames.Showed():
                leg.assignment.listener(frame.seen)
            case frames.Handed():
                self._handed(leg, frame)
            case frames.Over():
                self._over(leg, frame)

    def lost(self, instance: Instance) -> None:
        """Its process is gone, and what was there with it."""
        legs = tuple(instance.legs.values())
        instance.legs.clear()
        for leg in legs:
            assignment = leg.assignment
            if leg is assignment.heir:
                assignment.heir = None
                self._find_heir(assignment, leg.origin)
            elif leg is assignment.leg:
                assignment.leg = None
                if assignment.heir is None:
                    self._left_behind(assignment, died=leg.took)
        self.dispatch()

    # --- one generation -----------------------------------------------------------------------------------------

    def _took(self, leg: Leg) -> None:
        assignment = leg.assignment
        now = self._clock()
        if leg is assignment.heir and leg.origin is not None:
            assignment.spent(leg.origin.usage)
            self._metrics.kv_seconds.observe(now - leg.since)
            self._metrics.kv_bytes.inc(leg.origin.segment.size)
            self._metrics.moves.labels("hand-over").inc()
            if assignment.leg is not None:
                self._drop(assignment.leg)
            assignment.leg, assignment.heir = leg, None
        elif not assignment.begun:
            assignment.queued_s = leg.since - assignment.arrived
        leg.took = True
        leg.since = leg.last_at = now
        leg.instance.remembered.note(assignment.keys)
        self.dispatch()

    def _turned_away(self, leg: Leg, refusal: Refusal) -> None:
        assignment, instance = leg.assignment, leg.instance
        del instance.legs[leg.key]
        self._metrics.turned_away.labels(*labels(instance)).inc()
        hint = None if refusal.retry_after_ms is None else refusal.retry_after_ms / 1000
        assignment.turned_away[instance.number] = leg.epoch, hint
        if leg is assignment.heir:
            assignment.heir = None
            self._find_heir(assignment, leg.origin)
            self.dispatch()
        else:
            assignment.leg = None
            self._wait(assignment)
            self.dispatch()
            if assignment in self.waiting and len(self.waiting) > self._queue_depth and not assignment.begun:
                self._finish(assignment, Refused(self.busy(assignment)))

    def _gave(self, leg: Leg, ids: tuple[int, ...]) -> None:
        assignment = leg.assignment
        if assignment.ending is not None:
            return
        leg.last_at = self._clock()
        freed, leg.backlog = leg.backlog, 0
        for emitted in assignment.give(ids):
            assignment.listener(emitted)
        if assignment.stopped and assignment.ending is None:
            assignment.ending = "stop"
            leg.instance.say(frames.Leave(leg.key))
        if freed:
            self._changed(leg.instance)

    def _handed(self, leg: Leg, frame: frames.Handed) -> None:
        assignment = leg.assignment
        if assignment.ending is not None:
            return  # it has been told to leave
        leg.handed = True
        self._phases.prefilled(frame.usage.prefill_ms / 1000)
        assignment.turned_away.clear()
        self._find_heir(assignment, frame)

    def _find_heir(self, assignment: Assignment, handed: frames.Handed | None) -> None:
        """Offer what was handed over to the next that may take it; where there is none, it goes on where it was."""
        source = assignment.leg
        if source is None:
            self._left_behind(assignment, died=True)
            return
        able = [each for each in self._heirs(source.instance) if each.number not in assignment.turned_away]
        if able:
            assignment.heir = self._offer(assignment, able[0], handed)
        else:
            source.instance.say(frames.Resume(source.key))

    def _over(self, leg: Leg, frame: frames.Over) -> None:
        assignment, instance = leg.assignment, leg.instance
        del instance.legs[leg.key]
        assignment.leg = None
        match frame.event:
            case Ended(reason, usage):
                self._measure(leg, usage.prefill_ms / 1000)
                assignment.spent(usage)
                self._finish_as(assignment, assignment.ending or reason)
            case Late():
                self._refuse(assignment)
            case Failed(code="engine"):
                self._left_behind(assignment, died=True)
            case Failed() as failed:
                self._finish(assignment, failed)
        self._freed(instance)

    def _measure(self, leg: Leg, prefill_s: float) -> None:
        if leg.origin is None and not leg.handed:
            self._phases.prefilled(prefill_s)
        if leg.instance.role == "decode" and leg.last_at > leg.since:
            self._phases.decoded(leg.last_at - leg.since)

    def _left_behind(self, assignment: Assignment, *, died: bool) -> None:
        """Its instance is gone. Whoever takes it on goes on with the same answer, after a prefill."""
        assignment.deaths += died
        if assignment.ending is not None:
            self._finish_as(assignment, assignment.ending)
        elif assignment.deaths >= MOST_DEATHS:
            text = f"{assignment.deaths} engine processes died with it"
            self._finish(assignment, Failed("engine", text, retriable=True))
        elif assignment.begun and assignment.grant <= assignment.given:
            self._finish_as(assignment, "grant")  # it was held open for an extension
        else:
            if died:
                self._metrics.moves.labels("crash").inc()
            if assignment.begun and assignment.timer is None:
                assignment.timer = self._later(RECOVERY, lambda: self._too_late(assignment))
            assignment.turned_away.clear()
            self._wait(assignment)

    def _wait(self, assignment: Assignment) -> None:
        """Unless its time ran out while it was offered."""
        limited = assignment.begun or assignment.job.deadline is not None
        if limited and assignment.timer is None:
            self._expire(assignment)
        else:
            self.waiting.append(assignment)

    def _too_late(self, assignment: Assignment) -> None:
        assignment.timer = None
        if assignment in self.waiting:  # else whoever has it keeps to the deadline, or turns it away
            self._expire(assignment)

    def _expire(self, assignment: Assignment) -> None:
        if assignment.begun:
            text = f"its engine process died, and no other one was free within {RECOVERY:g} s"
            self._finish(assignment, Failed("engine", text, retriable=True))
        else:
            self._refuse(assignment)

    # --- the end ------------------------------------------------------------------------------------------------

    def _refuse(self, assignment: Assignment) -> None:
        wait = self.retry_after(assignment)
        text = "no instance could begin it before the deadline of its first token"
        self._finish(assignment, Refused(Refusal("deadline", text, None if wait is None else wait * 1000)))

    def _finish_as(self, assignment: Assignment, reason: str) -> None:
        if not self._close(assignment):
            return
        rest, ended = assignment.end(reason)  # type: ignore[arg-type]
        if rest is not None:
            assignment.listener(rest)
        assignment.listener(ended)

    def _finish(self, assignment: Assignment, event: Event) -> None:
        if self._close(assignment):
            assignment.listener(event)

    def _close(self, assignment: Assignment) -> bool:
        """Whether it was still open."""
        if assignment.over:
            return False
        assignment.over = True
        if assignment.timer is not None:
            assignment.timer.cancel()
        if assignment in self.waiting:
            self.waiting.remove(assignment)
        for leg in assignment.legs:
            self._drop(leg)
        self._ended(assignment)
        return True

    def _drop(self, leg: Leg) -> None:
        """Its instance is to forget it."""
        assignment = leg.assignment
        if leg is assignment.leg:
            assignment.leg = None
        if leg is assignment.heir:
            assignment.heir = None
        if leg.instance.legs.pop(leg.key, None) is not None:
            leg.instance.say(frames.Leave(leg.key))

    def _freed(self, instance: Instance) -> None:
        """There is a place again."""
        self._departures.note(self._clock())
        self._changed(instance)

    def _changed(self, instance: Instance) -> None:
        instance.epoch += 1
        self.dispatch()
