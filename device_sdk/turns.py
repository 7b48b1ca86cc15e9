"""Whose pass is next on the engine's thread: whoever has had the least of its time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import TypeAlias

Job: TypeAlias = Callable[[], None]


class Ledger:
    """Engine time used by each owner, as in a completely fair scheduler. Pure.

    Who comes new, or comes back, begins at the least that anybody who is here has used: it gets its share from now on,
    and nothing for the past.
    """

    def __init__(self) -> None:
        self._used: dict[Hashable, float] = {}
        self._floor = 0.0

    def enter(self, owner: Hashable) -> None:
        self._used.setdefault(owner, min(self._used.values(), default=self._floor))

    def used(self, owner: Hashable, seconds: float) -> None:
        if owner in self._used:
            self._used[owner] += seconds
            self._floor = max(self._floor, min(self._used.values()))

    def leave(self, owner: Hashable) -> None:
        self._used.pop(owner, None)

    def next(self, waiting: list[Hashable]) -> Hashable:
        """Of those that wait, longest first, who has used the least."""
        return min(waiting, key=lambda owner: self._used.get(owner, self._floor))


class Turns:
    """A queue of jobs for one thread. Jobs of nobody come first, in order: loading, closing, what conversations keep.
    Each owner has one job waiting at most."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._plain: deque[Job | None] = deque()
        self._owned: dict[Hashable, Job] = {}
        self._ledger = Ledger()

    def put(self, job: Job | None, owner: Hashable | None = None) -> None:
        """None ends `run`, once nothing waits."""
        with self._changed:
            if owner is None:
                self._plain.append(job)
            else:
                self._ledger.enter(owner)
                self._owned[owner] = job or _nothing
            self._changed.notify()

    def leave(self, owner: Hashable) -> None:
        """It is done; what it has waiting is dropped."""
        with self._changed:
            self._owned.pop(owner, None)
            self._ledger.leave(owner)

    def run(self, perform: Callable[[Job], None]) -> None:
        """Until the end is put; `perform` must not raise."""
        while True:
            owner, job = self._take()
            if job is None:
                return
            begun = time.perf_counter()
            perform(job)
            if owner is not None:
                with self._changed:
                    self._ledger.used(owner, time.perf_counter() - begun)

    def _take(self) -> tuple[Hashable | None, Job | None]:
        with self._changed:
            self._changed.wait_for(lambda: self._plain or self._owned)
            if self._plain and (self._plain[0] is not None or not self._owned):
                return None, self._plain.popleft()
            owner = self._ledger.next(list(self._owned))
            return owner, self._owned.pop(owner)


def _nothing() -> None:
    pass
