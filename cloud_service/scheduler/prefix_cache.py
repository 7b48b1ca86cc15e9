"""Sequences that are kept after their generation, for prompts that begin with the same tokens. Pure bookkeeping.

What is kept forms trees: a sequence that was forked from another shares the KV of its beginning with it, as in
SGLang's RadixAttention (arXiv 2312.07104). Whoever is shared from stays; of the others the least recently used goes
first.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Tokens: TypeAlias = NDArray[np.int32]

#: Tokens that are to agree at least: what every prompt begins with, the template's first words, is not worth a fork.
SHORTEST = 16


@dataclass(slots=True, eq=False)
class Kept:
    """One sequence in the engine that nobody feeds any more."""

    sequence: int
    tokens: Tokens
    #: Whose prompts may find it.
    scope: str
    #: What it was forked from, and how many of its tokens' KV it shares with that.
    parent: Kept | None = None
    shared: int = 0
    #: Generations and kept sequences that were forked from it and are still there.
    users: int = 0
    #: When it was last of use, in turns.
    used: int = 0

    @property
    def own(self) -> int:
        """Tokens whose KV is there for it alone."""
        return len(self.tokens) - self.shared


@dataclass(slots=True)
class PrefixCache:
    """Belongs to the engine's thread; `match` and `tokens` may be asked from any."""

    _buckets: dict[tuple[str, bytes], list[Kept]] = field(default_factory=dict)
    _turns: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _own: int = 0
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    @property
    def tokens(self) -> int:
        """In the KV of all that is kept, shared ones counted once."""
        return self._own

    def match(self, tokens: Sequence[int], scope: str) -> tuple[Kept, int] | None:
        """What agrees with `tokens` the furthest, and how far; None below SHORTEST."""
        with self._lock:
            bucket = tuple(self._buckets.get(_bucket(np.asarray(tokens[:SHORTEST], dtype=np.int32), scope), ()))
        if not bucket:
            return None
        wanted = np.asarray(tokens, dtype=np.int32)
        length, _, kept = max(
            ((_agreeing(kept.tokens, wanted), kept.used, kept) for kept in bucket), key=lambda found: found[:2]
        )
        return kept, length

    def touch(self, kept: Kept) -> None:
        """It was of use just now."""
        kept.used = next(self._turns)

    def add(self, kept: Kept) -> list[Kept]:
        """Keep it. Returns what is not worth keeping any more, now out of the cache: all that it begins with."""
        self.touch(kept)
        covered = self._covered_by(kept)
        self._insert(kept)
        dropped = []
        for other in covered:
            if not other.users:
                self.remove(other)
                dropped.append(other)
        # A parent that is the beginning of its only child is found through the child just as well.
        while (parent := kept.parent) is not None and parent.users == 1 and kept.shared == len(parent.tokens):
            kept.parent, kept.shared = parent.parent, parent.shared
            self._own += parent.own
            parent.parent = None  # its place in the tree is taken, and with it the count of users above
            self._take_out(parent)
            dropped.append(parent)
        return dropped

    def remove(self, kept: Kept) -> None:
        """Forget what nobody uses. What it was forked from is used by one less."""
        if kept.users:
            raise RuntimeError(f"sequence {kept.sequence} is shared by {kept.users} and cannot go")
        self._take_out(kept)
        if kept.parent is not None:
            kept.parent.users -= 1

    def least_useful(self, but: Kept | None = None) -> Kept | None:
        """The least recently used of those that nobody uses; never `but`."""
        free = (kept for bucket in self._buckets.values() for kept in bucket if not kept.users and kept is not but)
        return min(free, key=lambda kept: kept.used, default=None)

    def _covered_by(self, kept: Kept) -> list[Kept]:
        bucket = self._buckets.get(_bucket(kept.tokens, kept.scope), ())
        return [other for other in bucket if _agreeing(other.tokens, kept.tokens) == len(other.tokens)]

    def _insert(self, kept: Kept) -> None:
        with self._lock:
            self._buckets.setdefault(_bucket(kept.tokens, kept.scope), []).append(kept)
        self._own += kept.own
        self._count += 1

    def _take_out(self, kept: Kept) -> None:
        key = _bucket(kept.tokens, kept.scope)
        with self._lock:
            self._buckets[key].remove(kept)
            if not self._buckets[key]:
                del self._buckets[key]
        self._own -= kept.own
        self._count -= 1


def _bucket(tokens: Tokens, scope: str) -> tuple[str, bytes]:
    return scope, tokens[:SHORTEST].tobytes()


def _agreeing(kept: Tokens, wanted: Tokens) -> int:
    length = min(len(kept), len(wanted))
    different = np.flatnonzero(kept[:length] != wanted[:length])
    return int(different[0]) if len(different) else length
