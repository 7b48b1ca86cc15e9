"""How long the screen's thread is at one thing: for the tour, which prints it, and for tests."""

from __future__ import annotations

import time

from PySide6.QtCore import QObject, QTimer


class Turns(QObject):
    """The longest turn of the event loop of the thread that made it, in CPU time of that thread: what a machine without
    other work would take at most."""

    def __init__(self) -> None:
        super().__init__()
        self.longest_s = 0.0
        self._last = time.thread_time()
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self.look)

    def begin(self) -> None:
        self.longest_s = 0.0
        self._last = time.thread_time()
        self._timer.start()

    def end(self) -> float:
        """Seconds."""
        self.look()
        self._timer.stop()
        return self.longest_s

    def look(self) -> None:
        """A turn ends here."""
        now = time.thread_time()
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now
