"""From options to a running program, and back down in good order."""

from __future__ import annotations

import dataclasses
import signal
import sys
from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from demos.chat.answering.holder import StageHolder
from demos.chat.background import Background, LoopThread
from demos.chat.history.worker import History
from demos.chat.ui.bridge import Bridge
from demos.chat.ui.look import Look
from demos.chat.ui.window import Window
from demos.chat.viewmodel.app import AppModel
from demos.chat.viewmodel.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from demos.chat.answering.states import SideState
    from demos.chat.viewmodel.settings import Settings
    from demos.chat.viewmodel.sides import Holder

#: Seconds for answers to be cancelled and the cloud's process to end.
_GRACE = 8.0
_SIGNALS_EVERY_MS = 250


class Program:
    """Everything that runs. Made on the screen's thread, with a QApplication there."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        demo: bool = False,
        complaint: str | None = None,
        holder: Callable[[Callable[[SideState], None]], Holder] = StageHolder,
    ) -> None:
        self.bridge = Bridge()
        self.thread = LoopThread("pd-chat")
        self.background = Background(self.thread.loop, self.bridge.post)
        self.history = History(folder / "history.sqlite")
        self.holder = holder(self._told)
        self.app = AppModel(self.background, self.history, self.holder, settings, folder / "settings.json")
        self.look = Look(settings)
        self.window = Window(self.look, self.app, "pd-chat (demo)" if demo else "pd-chat")
        self._demo = demo
        if complaint is not None:
            self.app.trouble.emit(Problem("The settings could not be read", complaint, "settings"))

    def start(self) -> None:
        """Show the window; what takes time begins behind it."""
        self.window.show()
        QTimer.singleShot(0, self.window, lambda: self.app.start(examples=self._demo))

    def stop(self) -> None:
        """Blocks until the cloud's process is gone and the history is written. Idempotent."""
        thread, self.thread = self.thread, None  # type: ignore[assignment]  # only here, at the end
        if thread is None:
            return
        self.window.close()
        self.app.current.stop()
        self.background.wait(self.holder.close(), _GRACE)
        self.background.wait(self.history.written(), _GRACE)
        self.background.close()
        thread.stop(within=1.0)
        self.history.close()

    def _told(self, state: SideState) -> None:
        self.bridge.post(lambda: self.app.sides.note(state))


def run(settings: Settings, folder: Path, *, demo: bool, complaint: str | None) -> int:
    """The exit code, when the last window was closed."""
    application = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(application, QApplication)  # noqa: S101 - nothing else makes one here
    application.setApplicationName("pd-chat")
    application.setStyle("Fusion")
    wake = _quit_on_signals(application)
    program = Program(dataclasses.replace(settings), folder, demo=demo, complaint=complaint)
    program.start()
    try:
        return application.exec()
    finally:
        wake.stop()
        program.stop()


def _quit_on_signals(application: QApplication) -> QTimer:
    """Ctrl-C and SIGTERM must end the cloud's process too. Qt's loop lets Python see a signal only when Python runs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: application.quit())
    wake = QTimer()
    wake.timeout.connect(lambda: None)
    wake.start(_SIGNALS_EVERY_MS)
    return wake
