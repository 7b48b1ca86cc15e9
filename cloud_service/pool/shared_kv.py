"""A KV cache on its way from one process to another: one contiguous buffer in shared memory.

Whoever makes a segment releases it. Python's resource tracker, a process of its own, does so for a maker that is
killed; whoever only reads one must not have it tracked, or its end would take the segment away from the others.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

#: What all segments are called, before the number of the process.
PREFIX = "pd_kv_"

_numbers = itertools.count()


class GoneError(Exception):
    """The segment is not there any more: its maker has died, or has taken it back."""


def put(data: bytes) -> SharedMemory:
    """A new segment that holds `data`, and perhaps some bytes more. `release` it. Raises OSError where there is no
    room for it."""
    # Named after its maker, so that one that is left behind can be told from those of others.
    segment = SharedMemory(f"{PREFIX}{os.getpid()}_{next(_numbers)}", create=True, size=max(1, len(data)))
    _memory(segment)[: len(data)] = data
    return segment


def release(segment: SharedMemory) -> None:
    """Harmless for one that is gone already."""
    segment.close()
    try:
        segment.unlink()
    except FileNotFoundError:
        resource_tracker.unregister(f"/{segment.name.removeprefix('/')}", "shared_memory")


def take(name: str, size: int) -> bytes:
    """A copy of a segment's first `size` bytes. Raises GoneError."""
    with _attached(name) as segment:
        return bytes(_memory(segment)[:size])


def _memory(segment: SharedMemory) -> memoryview:
    if segment.buf is None:
        raise GoneError(f"the shared memory {segment.name} is closed")
    return segment.buf


@contextmanager
def _attached(name: str) -> Iterator[SharedMemory]:
    try:
        segment = _untracked(name)
    except (FileNotFoundError, ValueError) as error:  # ValueError: its maker has not given it a size yet
        raise GoneError(f"the shared memory {name} is gone") from error
    try:
        yield segment
    finally:
        segment.close()


def _untracked(name: str) -> SharedMemory:
    if sys.version_info >= (3, 13):
        return SharedMemory(name, track=False)
    # Before 3.13 readers are tracked like makers (CPython issue 82300).
    register = resource_tracker.register
    resource_tracker.register = lambda name, rtype: None
    try:
        return SharedMemory(name)
    finally:
        resource_tracker.register = register
