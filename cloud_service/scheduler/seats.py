"""Who has a sequence in the engine, and how much of its KV cache is spoken for.

Room for all that a generation may become, prompt and grant, is set aside before it begins: it is never evicted and
never runs out of memory in mid-answer. What is left holds sequences of past generations, for prompts that begin alike.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloud_service.scheduler.prefix_cache import SHORTEST, Kept, PrefixCache
from model_runtime.core import Engine
from model_runtime.errors import BadInputError

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Seat:
    """A generation's place in the engine."""

    sequence: int
    #: Tokens that its KV cache may come to hold.
    reserved: int
    scope: str = ""
    #: Tokens that it held from the beginning.
    cached: int = 0
    #: What it was forked from, and how many tokens' KV it shares with that.
    parent: Kept | None = None
    shared: int = 0

    @property
    def own(self) -> int:
        """Tokens that are set aside for it alone."""
        return self.reserved - self.shared


class Seats:
    """Belongs to the engine's thread, but for `cached` and the counts. Raises what the engine raises."""

    def __init__(self, engine: Engine, capacity: int, *, keeps: bool) -> None:
        """`capacity`: tokens of KV in all. `keeps`: whether sequences outlive their generations."""
        self._engine = engine
        self._keeps = keeps
        # Where sequences have arrays of their own, a fork's beginning takes memory like the rest of it.
        self._shares = engine.info.kv_tokens is not None
        self._cache = PrefixCache()
        self._own = 0
        self._count = 0
        self.capacity = capacity

    @property
    def kept_sequences(self) -> int:
        return len(self._cache)

    @property
    def kept_tokens(self) -> int:
        """In KV caches of past generations."""
        return self._cache.tokens

    @property
    def reserved_tokens(self) -> int:
        """Set aside for generations."""
        return self._own

    def cached(self, tokens: Sequence[int], scope: str) -> int:
        """How many of `tokens` would be found in the cache now. From any thread."""
        found = self._cache.match(tokens, scope)
        return 0 if found is None else found[1]

    def take(self, tokens: Sequence[int], scope: str, *, reserve: int) -> Seat | None:
        """A sequence that may grow to `reserve` tokens, with as many of `tokens` in it as the cache has; None where
        there is no room. Past generations make room, those least recently of use first."""
        found = self._cache.match(tokens, scope)
        if found is not None:
            kept, length = found
            self._cache.touch(kept)
            seat = self._forked(kept, length, scope, reserve) or self._taken_over(kept, length, scope, reserve)
            if seat is not None:
                return seat
        if not self._make_room(reserve, sequences=1):
            return None
        return self._seated(Seat(self._engine.open(), reserve, scope))

    def adopt(self, kv: bytes, scope: str, *, reserve: int) -> Seat | None:
        """A sequence made of KV from elsewhere; None where there is no room, or it does not fit this engine."""
        if not self._make_room(reserve, sequences=1):
            return None
        try:
            sequence = self._engine.import_kv(kv)
        except BadInputError as error:
            logger.warning("KV from elsewhere is not usable: %s", error)
            return None
        return self._seated(Seat(sequence, reserve, scope, cached=self._engine.length(sequence)))

    def grow(self, seat: Seat, reserve: int) -> int:
        """Let a sequence grow to `reserve` tokens, or as far as there is room; returns how far."""
        more = reserve - seat.reserved
        if more > 0:
            self._make_room(more, sequences=0)
            more = min(more, self._free)
            seat.reserved += more
            self._own += more
        return seat.reserved

    def leave(self, seat: Seat, tokens: Sequence[int]) -> None:
        """Give a seat back; `tokens` are in its sequence. It is kept if that is of use to anyone."""
        self._own -= seat.own
        self._count -= 1
        if self._keeps and len(tokens) >= SHORTEST and self.cached(tokens, seat.scope) < len(tokens):
            kept = Kept(seat.sequence, np.asarray(tokens, dtype=np.int32), seat.scope, seat.parent, seat.shared)
            for dropped in self._cache.add(kept):
                self._engine.close(dropped.sequence)
            return
        if seat.parent is not None:
            seat.parent.users -= 1
        self._engine.close(seat.sequence)

    @property
    def _free(self) -> int:
        return self.capacity - self._own - self._cache.tokens

    def _seated(self, seat: Seat) -> Seat:
        self._own += seat.own
        self._count += 1
        return seat

    def _make_room(self, tokens: int, *, sequences: int, but: Kept | None = None) -> bool:
        """Evict until so much is free; False where what is left of the cache is in use."""
        most = self._engine.info.max_sequences
        while self._free < tokens or self._count + len(self._cache) + sequences > most:
            victim = self._cache.least_useful(but)
            if victim is None:
                return False
            self._cache.remove(victim)
            self._engine.close(victim.sequence)
        return True

    def _forked(self, kept: Kept, length: int, scope: str, reserve: int) -> Seat | None:
        shared = length if self._shares else 0
        if not self._make_room(reserve - shared, sequences=1, but=kept):
            return None
        sequence = self._engine.fork(kept.sequence)
        if not self._cut(sequence, length):
            self._engine.close(sequence)
            return None
        parent = kept if self._shares else None
        if parent is not None:
            parent.users += 1
        return self._seated(Seat(sequence, reserve, scope, length, parent, shared))

    def _taken_over(self, kept: Kept, length: int, scope: str, reserve: int) -> Seat | None:
        """The kept sequence itself, where there is no room for it and a fork."""
        if kept.users or not self._cut(kept.sequence, length):
            return None
        parent, shared = kept.parent, min(kept.shared, length)
        if parent is not None:
            parent.users += 1  # before the kept one is no user of it any more, so that it stays
        self._cache.remove(kept)
        if not self._make_room(reserve - shared, sequences=1):
            if parent is not None:
                parent.users -= 1
            self._engine.close(kept.sequence)
            return None
        return self._seated(Seat(kept.sequence, reserve, scope, length, parent, shared))

    def _cut(self, sequence: int, length: int) -> bool:
        """Whether the model's memory can go back to its first `length` tokens; some kinds cannot."""
        try:
            self._engine.truncate(sequence, length)
        except BadInputError:
            return False
        return True
