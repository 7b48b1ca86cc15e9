"""Bytes under way in one direction of an emulated link: a queue with one timer."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from device_sdk.testing.link_profiles import Lane


class Ending(enum.Enum):
    """How a sender ended its direction; it travels in order behind the bytes, as FIN and RST do."""

    EOF = "eof"
    RESET = "reset"


class Outlet(Protocol):
    """Where bytes of one connection come out."""

    @property
    def closed(self) -> bool: ...

    def deliver(self, data: bytes) -> None: ...

    def end(self, ending: Ending) -> None: ...


@dataclass(frozen=True, slots=True)
class _UnderWay:
    due: float
    outlet: Outlet
    payload: bytes | Ending


@dataclass(frozen=True, slots=True)
class _Armed:
    at: int
    fault: Callable[[], None]


class Flow:
    """Holds what enters until its time has come. All connections share it, in order of entry."""

    def __init__(self, lane: Lane, loop: asyncio.AbstractEventLoop) -> None:
        self.lane = lane
        #: Bytes that came out.
        self.delivered = 0
        self._loop = loop
        self._queue: deque[_UnderWay] = deque()
        self._armed: list[_Armed] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stalled = False
        self._draining = False

    def enter(self, outlet: Outlet, payload: bytes | Ending) -> None:
        now = self._loop.time()
        jitter = self.lane.draw_jitter()
        if isinstance(payload, Ending):
            self._queue.append(_UnderWay(self.lane.arrival(now, 0, jitter), outlet, payload))
        else:
            for piece in self.lane.pieces(payload):
                self._queue.append(_UnderWay(self.lane.arrival(now, len(piece), jitter), outlet, piece))
        if self._timer is None:
            self._drain()

    def after(self, count: int, fault: Callable[[], None]) -> None:
        self._armed.append(_Armed(self.delivered + count, fault))
        self._armed.sort(key=lambda armed: armed.at)

    def stall(self) -> None:
        self._stalled = True

    def resume(self) -> None:
        self._stalled = False
        self._drain()

    def shut_down(self) -> None:
        """Forget everything under way."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _drain(self) -> None:
        """Deliver what is due, then set the timer for what is next. A fault that fires here may call back into this
        flow; the loop below sees what it changed."""
        if self._draining:
            return
        self._draining = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            while self._queue and not self._stalled:
                first = self._queue[0]
                if not first.outlet.closed and first.due > self._loop.time():
                    self._timer = self._loop.call_at(first.due, self._on_timer)
                    return
                self._queue.popleft()
                if not first.outlet.closed:
                    self._let_out(first)
        finally:
            self._draining = False

    def _on_timer(self) -> None:
        self._timer = None
        self._drain()

    def _let_out(self, item: _UnderWay) -> None:
        if isinstance(item.payload, Ending):
            item.outlet.end(item.payload)
            return
        data = item.payload
        if self._armed and self.delivered + len(data) > self._armed[0].at:
            cut = self._armed[0].at - self.delivered
            self._queue.appendleft(_UnderWay(item.due, item.outlet, data[cut:]))
            data = data[:cut]
        if data:
            item.outlet.deliver(data)
            self.delivered += len(data)
        while self._armed and self._armed[0].at <= self.delivered:
            self._armed.pop(0).fault()
