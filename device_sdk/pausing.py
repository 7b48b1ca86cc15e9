"""Pause and resume of a generation, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class PauseSwitch:
    """Pass it as `stream(…, pause=switch)`. While it is on, the generation begins nothing and shows nothing, its place
    in the cloud is free, and no deadline passes; what is under way ends. It goes on where it was.

    One switch may hold several generations; one that is on beforehand holds them from their beginning.
    """

    def __init__(self) -> None:
        self._paused = False
        self._lock = threading.Lock()
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def paused(self) -> bool:
        return self._paused

    def pause(self) -> None:
        """Idempotent, as is `resume`."""
        self._set(True)

    def resume(self) -> None:
        self._set(False)

    def listen(self, told: Callable[[bool], None]) -> Callable[[], None]:
        """`told` of each change, from the thread that makes it, and of the present state if it is on. Returns what ends
        it."""
        with self._lock:
            self._listeners.append(told)
            if self._paused:
                told(True)

        def end() -> None:
            with self._lock:
                if told in self._listeners:
                    self._listeners.remove(told)

        return end

    def _set(self, paused: bool) -> None:
        with self._lock:
            if paused == self._paused:
                return
            self._paused = paused
            for told in self._listeners:
                told(paused)
