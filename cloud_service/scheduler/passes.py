"""Ends a pass that nobody in it needs any more."""

from __future__ import annotations

import threading
from collections.abc import Collection

from model_runtime.core import Cancellation


class PassGuard:
    """Knows who takes part in the pass under way and who wants to leave. Thread-safe.

    A pass is cancelled once all its generations want to leave; one that others need runs to its end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leaving: set[int] = set()
        self._in_pass: frozenset[int] = frozenset()
        self._cancellation = Cancellation()
        self._closed = False

    def begin(self, keys: Collection[int]) -> Cancellation:
        """A pass of these generations begins; returns what ends it."""
        with self._lock:
            self._in_pass = frozenset(keys)
            self._cancellation = Cancellation()
            self._cancel_if_unwanted()
            return self._cancellation

    def end(self) -> None:
        with self._lock:
            self._in_pass = frozenset()

    def leave(self, key: int) -> None:
        """A generation is not wanted any more."""
        with self._lock:
            self._leaving.add(key)
            self._cancel_if_unwanted()

    def forget(self, key: int) -> None:
        """The generation that wanted to leave is gone."""
        with self._lock:
            self._leaving.discard(key)

    def close(self) -> None:
        """No pass is wanted any more."""
        with self._lock:
            self._closed = True
            self._cancel_if_unwanted()

    def _cancel_if_unwanted(self) -> None:
        if self._in_pass and (self._closed or self._in_pass <= self._leaving):
            self._cancellation.cancel()
