"""A program on a screen, with a scripted client; and a witness of what its screen's thread waits for."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from demos.chat.testing import Script, ScriptedClient, ScriptedHolder
from demos.chat.ui.app import Program
from demos.chat.ui.turns import Turns
from demos.chat.viewmodel.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from demos.chat.answering.states import SideState
    from demos.chat.viewmodel.conversation import ConversationModel

_PATIENCE_MS = 30_000
#: What waits for a disk, a network or another process.
_WAITING = ("open", "sqlite3.connect", "socket.connect", "socket.bind", "subprocess.Popen", "os.listdir", "os.scandir")


class Screen:
    """`holder` and `client` are scripted; everything else is what ships."""

    def __init__(
        self, qtbot: QtBot, folder: Path, settings: Settings, script: Script | None = None, *, resized: bool = True
    ) -> None:
        self.client = ScriptedClient(script)
        self.holder = ScriptedHolder(self.client)
        self.qtbot = qtbot

        def holder(tell: Callable[[SideState], None]) -> ScriptedHolder:
            self.holder.tell = tell
            return self.holder

        self.program = Program(settings, folder, holder=holder)
        self.app, self.window = self.program.app, self.program.window
        if resized:
            self.window.resize(1024, 640)
        self.program.start()
        # Keys go to the active window only.
        self.window.activateWindow()
        self.until(self.window.isActiveWindow)
        self.until(lambda: self.app.sides.device.phase == "ready")

    @property
    def conversation(self) -> ConversationModel:
        return self.app.current

    def until(self, true: Callable[[], object]) -> None:
        self.qtbot.waitUntil(lambda: bool(true()), timeout=_PATIENCE_MS)

    def ask(self, text: str) -> None:
        """By the keyboard, and wait for the whole answer."""
        self.qtbot.keyClicks(self.window.composer.field, text)
        self.qtbot.keyClick(self.window.composer.field, "\r")
        self.until(lambda: not self.conversation.busy and not self.conversation.empty)

    def settle(self) -> None:
        """What was drawn is laid out."""
        self.qtbot.wait(120)


class Witness:
    """Counts waiting on the thread that makes it, and measures its longest turn of the event loop."""

    _hooked = False
    _watching: Witness | None = None

    def __init__(self) -> None:
        self.waited: list[str] = []
        self.longest_s = 0.0
        self._turns = Turns()
        self._thread = threading.get_ident()

    def __enter__(self) -> Witness:
        if not Witness._hooked:
            sys.addaudithook(_heard)  # cannot be taken off again; it listens only while someone watches
            Witness._hooked = True
        Witness._watching = self
        self._turns.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.longest_s = self._turns.end()
        Witness._watching = None

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _WAITING and threading.get_ident() == self._thread:
            self.waited.append(f"{event} {arguments[:1]}")


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    watching = Witness._watching
    if watching is not None:
        watching.hear(event, arguments)
