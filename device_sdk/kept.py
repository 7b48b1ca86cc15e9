"""KV caches that outlive a generation, so that a conversation's next turn reads only what is new.

`Shelf` decides on the event loop's thread which of them stay; what touches the engine is a job on the engine's thread,
in the order of the decisions, so neither side waits for the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_sdk.errors import DeviceError
from device_sdk.generation.prompt import PromptTrack
from device_sdk.generation.reading import Reading
from device_sdk.generation.spans import Spans
from model_runtime.core import Cancellation, Chunk, Engine, Logits
from model_runtime.errors import Cancelled, EngineFailedError, KVMismatchError

if TYPE_CHECKING:
    from device_sdk.engine_worker import EngineWorker

logger = logging.getLogger(__name__)


class KeptKV:
    """One conversation's. Its sequence is open in the engine exactly while `reading` is not empty or a turn uses it."""

    def __init__(self) -> None:
        #: What is in it, as the event loop's thread knows it, and in which engine: one loaded anew holds nothing.
        self.reading = Reading()
        self.engine: Engine | None = None
        self.in_use = False
        self._held: tuple[Engine, int] | None = None

    # --- on the engine's thread ----------------------------------------------------------------------------------

    def take(self, engine: Engine) -> int | None:
        """The sequence, for whoever puts it back or closes it; None where there is none."""
        held, self._held = self._held, None
        return held[1] if held is not None and held[0] is engine else None

    def put(self, engine: Engine, sequence: int) -> None:
        self._held = engine, sequence


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """A generation's use of the device: the sequence that it goes on in, and the positions of its prompt that are in it
    (None, and none, for a new one); room for `tokens` in all."""

    kept: KeptKV | None
    read: Spans
    tokens: int


class Shelf:
    """All that the conversations of one client keep: `limit` at most, the least recently used given up first."""

    def __init__(self, worker: EngineWorker, limit: int) -> None:
        self._worker = worker
        self._limit = limit
        #: The least recently used first.
        self._idle: list[KeptKV] = []
        self._leases: set[Lease] = set()

    @property
    def idle(self) -> int:
        """Conversations that keep something, less those that have a turn under way."""
        return len(self._idle)

    def lease(self, kept: KeptKV | None, prompt: Sequence[int], answer: int) -> Lease:
        """Room for a prompt and `answer` tokens; from here on the turn uses `kept`. Raises DeviceError where another
        turn does."""
        read: Spans = ()
        if kept is not None:
            read = self._use(kept).of(prompt)
        lease = Lease(kept, read, len(prompt) + answer)
        self._leases.add(lease)
        self._make_room(self._limit)
        return lease

    def release(self, lease: Lease, reading: Reading | None) -> None:
        """The turn is over, and this is in the sequence now; None: it did not touch the engine."""
        self._leases.discard(lease)
        if lease.kept is not None:
            self._put_down(lease.kept, lease.kept.reading if reading is None else reading)

    def drop(self, kept: KeptKV) -> None:
        """Give up what it holds; that of a turn under way stays. Harmless twice."""
        if kept in self._idle:
            self._idle.remove(kept)
            kept.reading = Reading()
            self._free(kept)

    def forget(self) -> None:
        """The engine is about to go: nothing is kept."""
        for kept in list(self._idle):
            self.drop(kept)

    async def fork(self, kept: KeptKV) -> KeptKV:
        """A second one that holds the same; empty where there is no room for it. Raises what the engine raises."""
        copy = KeptKV()
        if kept not in self._idle or self._limit < 2:
            return copy
        lease = self.lease(kept, (), 0)
        reading = kept.reading
        try:
            return await self._add(copy, reading, lambda engine: _fork(engine, kept, copy)) if len(reading) else copy
        finally:
            self.release(lease, reading)

    async def export(self, kept: KeptKV) -> tuple[Reading, bytes]:
        """What it holds, and that as bytes for `restore`; both empty where it holds nothing. Raises what the engine
        raises."""
        if kept not in self._idle:
            return Reading(), b""
        lease = self.lease(kept, (), 0)
        reading = kept.reading
        try:
            data = await self._worker.call(lambda: _export(kept, len(reading))) if len(reading) else b""
        finally:
            self.release(lease, reading)
        return (reading, data) if data else (Reading(), b"")

    async def restore(self, reading: Reading, data: bytes) -> KeptKV:
        """What `export` gave. Raises KVMismatchError, and DeviceError where there is no engine to hold it."""
        kept = KeptKV()
        return await self._add(kept, reading, lambda engine: _import(engine, kept, data, len(reading)))

    async def read(self, kept: KeptKV, tokens: Sequence[int], cancellation: Cancellation) -> int:
        """Read all of `tokens` into it, but what it holds already; how many that were until the end or `cancellation`.
        Raises DeviceError."""
        lease = self.lease(kept, tokens, 0)
        prompt = PromptTrack(tokens, read=lease.read)
        prompt.refine([(0, len(prompt))])
        reading, before = Reading(prompt.tokens, prompt.taken), prompt.fed
        try:
            while chunk := prompt.take(self._worker.chunk):
                start = prompt.fed - len(chunk)
                await self._worker.call(lambda chunk=chunk, start=start: self._append(kept, start, chunk, cancellation))  # type: ignore[misc]
                reading = Reading(prompt.tokens, prompt.taken)
        except Cancelled:
            logger.debug("reading ahead ended after %d tokens", len(reading) - before)
        finally:
            self.release(lease, reading)
        return len(reading) - before

    async def _add(self, kept: KeptKV, reading: Reading, make: Callable[[Engine], None]) -> KeptKV:
        engine = self._worker.engine
        if engine is None or self._worker.broken is not None:
            raise DeviceError(self._worker.broken or "no engine is loaded")
        kept.engine, kept.in_use = engine, True
        lease = Lease(kept, (), len(reading))
        self._leases.add(lease)
        self._make_room(max(self._limit - 1, 0))
        made = Reading()
        try:
            await self._worker.call(lambda: make(engine))
            made = reading
        finally:
            self.release(lease, made)
        return kept

    def _append(self, kept: KeptKV, start: int, chunk: Sequence[int], cancellation: Cancellation) -> None:
        """On the engine's thread."""
        engine = self._worker.engine
        if engine is None or self._worker.broken is not None:
            raise DeviceError(self._worker.broken or "no engine is loaded")
        sequence = kept.take(engine)
        sequence = engine.open() if sequence is None else sequence
        kept.put(engine, sequence)
        try:
            if engine.length(sequence) > start:
                engine.truncate(sequence, start)
            engine.forward([Chunk(sequence, chunk, Logits.NONE)], cancellation)
        except EngineFailedError as error:
            self._worker.broken = str(error)
            raise DeviceError(str(error)) from error

    def _use(self, kept: KeptKV) -> Reading:
        if kept.in_use:
            raise DeviceError("one turn at a time uses a KV cache; wait for the one under way")
        kept.in_use = True
        if kept in self._idle:
            self._idle.remove(kept)
        if kept.engine is not self._worker.engine or self._worker.broken is not None:
            kept.engine, kept.reading = self._worker.engine, Reading()
        return kept.reading

    def _put_down(self, kept: KeptKV, reading: Reading) -> None:
        kept.in_use, kept.reading = False, reading
        if len(reading):
            self._idle.append(kept)
            self._make_room(self._limit)
        else:
            self._free(kept)

    def _make_room(self, limit: int) -> None:
        """For the leases, by giving up what is idle, and all but `limit` of that."""
        engine = self._worker.engine
        if engine is None:
            return
        info = engine.info
        tokens = sum(lease.tokens for lease in self._leases)
        limit = min(limit, max(info.max_sequences - len(self._leases), 0))
        while len(self._idle) > limit or (
            self._idle
            and info.kv_tokens is not None
            and tokens + sum(len(kept.reading) for kept in self._idle) > info.kv_tokens
        ):
            self.drop(self._idle[0])

    def _free(self, kept: KeptKV) -> None:
        def free() -> None:
            engine = self._worker.engine
            sequence = None if engine is None else kept.take(engine)
            if engine is not None and sequence is not None and self._worker.broken is None:
                engine.close(sequence)

        self._worker.submit(free)


def _fork(engine: Engine, kept: KeptKV, copy: KeptKV) -> None:
    sequence = kept.take(engine)
    if sequence is None:
        raise DeviceError("the KV cache to fork is gone")
    kept.put(engine, sequence)
    copy.put(engine, engine.fork(sequence))


def _import(engine: Engine, kept: KeptKV, data: bytes, length: int) -> None:
    sequence = engine.import_kv(data)
    if engine.length(sequence) != length:
        found = engine.length(sequence)
        engine.close(sequence)
        raise KVMismatchError(f"the KV holds {found} tokens, and the text beside it {length}")
    kept.put(engine, sequence)


def _export(kept: KeptKV, length: int) -> bytes:
    engine = kept.engine
    sequence = None if engine is None else kept.take(engine)
    if engine is None or sequence is None:
        return b""
    kept.put(engine, sequence)
    if engine.length(sequence) > length:  # by a step that nobody waited for
        engine.truncate(sequence, length)
    return engine.export_kv(sequence)
