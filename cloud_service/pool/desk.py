"""What an engine process does about each frame. All of it but `observe` and `close` is on the outbox's thread."""

from __future__ import annotations

import functools
import logging
import threading
from multiprocessing.shared_memory import SharedMemory

from cloud_service.metrics import Occupancy
from cloud_service.pool import frames, shared_kv
from cloud_service.pool.outbox import Outbox
from cloud_service.scheduler.jobs import (
    Carried,
    Emitted,
    Ended,
    Event,
    Failed,
    HandedOver,
    Late,
    Refusal,
    Refused,
    Seen,
)
from cloud_service.scheduler.runner import Runner

logger = logging.getLogger(__name__)


class WorkerDesk:
    """Between the frames of a service and the scheduler of this process."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._runner: Runner | None = None
        #: By the service's key, the scheduler's.
        self._keys: dict[int, int] = {}
        self._segments: dict[int, SharedMemory] = {}
        self._lock = threading.Lock()
        self._busy_s, self._prefill_tokens, self._decode_tokens = 0.0, 0, 0

    def open(self, runner: Runner) -> None:
        self._runner = runner

    def observe(self, seconds: float, prefill_tokens: int, decode_tokens: int) -> None:
        """After each pass, on the engine's thread."""
        with self._lock:
            self._busy_s += seconds
            self._prefill_tokens += prefill_tokens
            self._decode_tokens += decode_tokens

    def state(self) -> frames.State:
        with self._lock:
            done = self._busy_s, self._prefill_tokens, self._decode_tokens
            self._busy_s, self._prefill_tokens, self._decode_tokens = 0.0, 0, 0
        runner = self._runner
        if runner is None:
            return frames.State(Occupancy(), 0.0, *done)
        return frames.State(runner.occupancy(), runner.pass_seconds, *done)

    def heed(self, frame: frames.ToEngine) -> None:
        runner = self._runner
        if runner is None:
            raise RuntimeError(f"{type(frame).__name__} came before the engine was loaded")
        match frame:
            case frames.Offer(key):
                self._consider(runner, key, frame)
            case frames.Extend(key, grant) if key in self._keys:
                runner.extend(self._keys[key], grant)
            case frames.Progress(key, shown, pace, ready_in) if key in self._keys:
                runner.progress(self._keys[key], shown=shown, pace=pace, ready_in=ready_in)
            case frames.Leave(key) if key in self._keys:
                self._release(key)
                runner.stop(self._keys[key])
            case frames.Resume(key) if key in self._keys:
                self._release(key)
                runner.resume(self._keys[key])
            case frames.Drain():
                runner.hold_no_grants()  # what waits in the service is still to come
            case _:
                pass  # its generation has ended meanwhile

    def close(self, timeout: float) -> None:
        """Free everything."""
        if self._runner is not None:
            self._runner.close(timeout)
        for key in tuple(self._segments):
            self._release(key)

    def _consider(self, runner: Runner, key: int, offer: frames.Offer) -> None:
        carried = None
        if offer.segment is not None:
            try:
                kv = shared_kv.take(offer.segment.name, offer.segment.size)
            except shared_kv.GoneError as error:
                self._outbox.say_now(frames.TurnedAway(key, Refusal("busy", str(error))))
                return
            carried = Carried(kv, offer.segment.tokens)
        answer = runner.submit(offer.job, functools.partial(self._hear, key), carried)
        if isinstance(answer, Refusal):
            self._outbox.say_now(frames.TurnedAway(key, answer))
        else:
            self._keys[key] = answer.key
            self._outbox.say_now(frames.Took(key, answer))

    def _hear(self, key: int, event: Event) -> None:
        """The listener of a generation."""
        match event:
            case Emitted(ids=ids):
                self._outbox.give_now(key, ids)
            case Seen():
                self._outbox.say_now(frames.Showed.of(key, event))
            case HandedOver():
                self._hand_over(key, event)
            case Ended():
                self._end(key, frames.Over(key, ended=event))
            case Failed():
                self._end(key, frames.Over(key, failed=event))
            case Late():
                self._end(key, frames.Over(key))
            case Refused():
                raise AssertionError("a scheduler in this process refuses at once or not at all")

    def _hand_over(self, key: int, event: HandedOver) -> None:
        kv = event.carried.kv
        try:
            segment = shared_kv.put(kv)
        except OSError as error:
            logger.warning("no shared memory for %d bytes of KV: %s", len(kv), error)
            if self._runner is not None:
                self._runner.resume(self._keys[key])
            return
        self._segments[key] = segment
        there = frames.Segment(segment.name, len(kv), event.carried.tokens)
        self._outbox.say_now(frames.Handed(key, there, event.usage))

    def _end(self, key: int, over: frames.Over) -> None:
        self._release(key)
        del self._keys[key]
        self._outbox.say_now(over)

    def _release(self, key: int) -> None:
        segment = self._segments.pop(key, None)
        if segment is not None:
            shared_kv.release(segment)
