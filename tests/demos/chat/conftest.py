"""A whole program without a screen: the view-model on the test's own event loop, a scripted client, a real history."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from demos.chat.background import Background
from demos.chat.history.worker import History
from demos.chat.testing import Script, ScriptedClient, ScriptedHolder
from demos.chat.viewmodel.app import AppModel
from demos.chat.viewmodel.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from demos.chat.viewmodel.conversation import ConversationModel
    from demos.chat.viewmodel.problems import Problem
    from tests.demos.chat.screen import Screen

_PATIENCE = 60.0


class Rig:
    """What a test holds: the program's view-model and the fakes behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = ScriptedClient()
        self.holder = ScriptedHolder(self.client)
        self.history = History(folder / "history.sqlite")
        background = Background(asyncio.get_running_loop(), lambda call: call())
        self.app = AppModel(background, self.history, self.holder, Settings(), folder / "settings.json")
        self.holder.tell = self.app.sides.note
        self.troubles: list[Problem] = []
        self.app.trouble.subscribe(self.troubles.append)

    @property
    def conversation(self) -> ConversationModel:
        return self.app.current

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not true():  # noqa: ASYNC110 - whatever a test looks at
                await asyncio.sleep(0.002)

    async def asked(self, text: str) -> str:
        """Ask, wait for the whole answer, and return its id."""
        assert self.conversation.send(text)
        await self.until(lambda: not self.conversation.busy)
        return self.conversation.tree.path()[-1].id

    async def written(self) -> None:
        """Everything that was asked of the history has been done."""
        for _ in range(10):  # what was begun may ask in some turns from now
            await asyncio.sleep(0)
        await self.history.written()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.conversation.stop()
    await asyncio.sleep(0)
    made.history.close()


@pytest.fixture
def on_screen(qtbot: QtBot, tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    """A program on a screen: `on_screen(script, **settings)`, of the size of a small laptop unless not `resized`."""
    from tests.demos.chat.screen import Screen

    made: list[Screen] = []

    def make(script: Script | None = None, *, resized: bool = True, **settings: object) -> Screen:
        chosen = {"device_model": "scripted", "cloud": "remote", "cloud_url": "ws://scripted", **settings}
        made.append(Screen(qtbot, tmp_path, Settings(**chosen), script, resized=resized))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for screen in made:
        screen.program.stop()
        screen.window.deleteLater()
