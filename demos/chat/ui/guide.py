"""Leads the program through a tour: asks, waits, looks, takes pictures. For tours and tests only."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PySide6.QtCore import QBuffer, QCoreApplication, QEvent, QEventLoop, QIODevice, Qt, QTimer
from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import QApplication

from demos.chat.answering.holder import StageHolder
from demos.chat.testing import Script, ScriptedClient, ScriptedHolder
from demos.chat.ui.app import Program
from demos.chat.ui.settings_dialog import SettingsDialog
from demos.chat.ui.turns import Turns
from device_sdk import Mode, Notice, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from demos.chat.answering.states import SideState
    from demos.chat.viewmodel.messages import MessageModel
    from demos.chat.viewmodel.settings import Settings, Theme

_PATIENCE_S = 150.0
_SETTLED_MS = 350
_LAYOUTS = 6
#: Pictures until two are the same.
_TRIES = 20
_FRAME_MS = 100
#: Of the recording; what a README shows.
_FILM_WIDTH = 820
_FILM_END_MS = 2_000
_LONGEST_FILM = 300
_LOST = Notice("cloud_lost", "the connection broke")
SCRIPT = """Three entries of the log name **job N73**:

1. *412*: Mira Nagy locked the north gate and noted `N73`.
2. *415*: Ivo Lund painted the crane beside it.
3. *431*: The pump was moved to the south dock.

```python
def entries(log, job):
    return [line for line in log if job in line]
```

| entry | person | what |
|---|---|---|
| 412 | Mira Nagy | locked the gate |
| 415 | Ivo Lund | painted the crane |

Nothing else was written about it that week."""


class Guide:
    """Waits for at most two and a half minutes for anything; TimeoutError otherwise."""

    def __init__(
        self, settings: Settings, folder: Path, out: Path, size: tuple[int, int], *, scripted: bool = False
    ) -> None:
        application = QApplication.instance() or QApplication(sys.argv[:1])
        assert isinstance(application, QApplication)  # noqa: S101 - nothing else makes one here
        application.setStyle("Fusion")
        self._out = out
        self._client = ScriptedClient(Script(SCRIPT, cloud=28, pace=0.03)) if scripted else None
        self._program = Program(settings, folder, demo=True, holder=self._holder)
        self.window, self.app = self._program.window, self._program.app
        self.window.resize(*size)
        self.window.move(10, 10)
        self._program.start()
        self._spin(1)
        self._turns = Turns()
        #: What the screen's thread was at, and its longest turn, in milliseconds of its own CPU time.
        self.longest_ms: dict[str, int] = {}
        self._frames: list[QPixmap] = []
        self._camera = QTimer()
        self._camera.setInterval(_FRAME_MS)
        self._camera.timeout.connect(lambda: self._frames.append(self._grab()))

    def close(self) -> None:
        self._camera.stop()
        self._program.stop()

    # --- looking -------------------------------------------------------------------------------------------------

    def picture(self, name: str) -> None:
        self._spin(_SETTLED_MS)
        self._out.mkdir(parents=True, exist_ok=True)
        dialog = self._dialog()
        picture = self._still()
        if not picture.save(str(self._out / f"{name}.png")):
            raise OSError(f"{self._out / name}.png cannot be written")
        if dialog is not None:
            dialog.grab().save(str(self._out / f"{name}.png"))

    def _grab(self) -> QPixmap:
        # As the screen would show it: laid out first, however many layouts stand on each other.
        for _ in range(_LAYOUTS):
            QCoreApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest)
        return self.window.grab()

    def _still(self) -> QPixmap:
        """The window as it is while an answer streams, else once nothing moves in it any more: on a busy machine that
        takes its time."""
        picture = self._grab()
        for _ in range(_TRIES):
            if self.app.current.busy:
                break
            self._spin(_SETTLED_MS)
            before, picture = picture, self._grab()
            if before.toImage() == picture.toImage():
                break
        return picture

    def film_begins(self) -> None:
        self._frames.clear()
        self._camera.start()

    def film_ends(self, path: Path) -> None:
        """One animated WebP."""
        from PIL import Image

        self._camera.stop()
        pictures = []
        for frame in self._frames:
            buffer = QBuffer()
            buffer.open(QIODevice.OpenModeFlag.WriteOnly)
            scaled = frame.scaledToWidth(_FILM_WIDTH, Qt.TransformationMode.SmoothTransformation)
            scaled.save(buffer, "PNG")
            pictures.append(Image.open(io.BytesIO(buffer.data().data())).convert("RGB"))
        # An answer that does not end is no film.
        del pictures[_LONGEST_FILM:]
        durations = [_FRAME_MS] * (len(pictures) - 1) + [_FILM_END_MS]
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures[0].save(
            path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=55, method=4
        )

    @contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """How long the screen's thread is at one thing meanwhile: `longest_ms[what]`."""
        self._turns.begin()
        yield
        self.longest_ms[what] = round(1000 * self._turns.end())

    # --- doing ---------------------------------------------------------------------------------------------------

    def change_looks(self) -> None:
        """To the other theme and a larger text, and back."""
        before = self.app.settings
        theme: Theme = "dark" if before.theme == "light" else "light"
        for change in (
            {"theme": theme, "font_size": before.font_size + 1},
            {"theme": before.theme, "font_size": before.font_size},
        ):
            self.app.change(**change)
            self._spin(_SETTLED_MS)

    def ask_and_unplug(self, number: int, *, after: int) -> MessageModel:
        """Break the network once `after` tokens came, wait for the answer's end, and mend it."""
        if self._client is not None:
            self._client.script = Script(SCRIPT, cloud=after, pace=0.01, notices=(_LOST,))
        answer = self.ask_example(number)
        self._until(lambda: len(answer.answer.trace.arrivals) >= after or answer.state != "streaming")
        self.app.sides.unplug(True)
        self.wait_whole(answer)
        return answer

    def plug_in(self) -> None:
        self.app.sides.unplug(False)
        self._spin(_SETTLED_MS)

    def wait_ready(self) -> None:
        """Both sides are there, or one has failed; and there is something to ask."""
        sides = self.app.sides
        self._until(lambda: not sides.device.under_way and not sides.cloud.under_way and sides.device.phase != "off")
        self._until(lambda: self.app.examples)

    def ask_example(self, number: int) -> MessageModel:
        self.app.new_chat()
        self.app.ask_example(self.app.examples[number])
        return self.app.current.tree.path()[-1]

    def right(self, number: int, answer: MessageModel) -> bool:
        """Whether it is what the document says, to the letter."""
        expected = self.app.examples[number].expected
        return expected is not None and answer.text.strip() == expected.strip()

    def wait_words_of_device(self, answer: MessageModel, count: int) -> None:
        """Or the answer's end, where the device has less to say."""
        self._until(lambda: answer.answer.trace.sources.count(Source.DEVICE) >= count or answer.state != "streaming")

    def wait_whole(self, answer: MessageModel) -> None:
        self._until(lambda: answer.state != "streaming")

    def compare(self, answer: MessageModel) -> None:
        self.window.compare(answer.id)
        page = self.window.comparison
        self._until(lambda: page is None or not page.busy)

    def leave_comparison(self) -> bool:
        """Whether all three answered."""
        page = self.window.comparison
        whole = page is not None and page.whole
        self.window.close_comparison()
        return whole

    def settings_page(self, number: int) -> None:
        self.window.open_settings()
        dialog = self._dialog()
        if dialog is not None:
            dialog.show_page(number)

    def close_dialogs(self) -> None:
        dialog = self._dialog()
        if dialog is not None:
            dialog.reject()
            self._spin(_SETTLED_MS)

    def ask_and_kill_cloud(self, number: int, *, after: int) -> MessageModel:
        """Kill the cloud's process once it gave `after` tokens, and wait for the answer's end."""
        if self._client is not None:
            self._client.script = Script(SCRIPT, cloud=after, notices=(_LOST,))
            answer = self.ask_example(number)
        else:
            answer = self.ask_example(number)
            self._until(lambda: len(answer.answer.trace.arrivals) >= after or answer.state != "streaming")
            self._kill()
        self.wait_whole(answer)
        return answer

    def reopen(self, answer: MessageModel) -> MessageModel:
        """Leave the conversation, and open it from the history."""
        id_ = self.app.current.id
        self.app.new_chat()
        self._until(lambda: any(summary.id == id_ for summary in self.app.library.summaries))
        self.app.open(id_)
        self._until(lambda: self.app.current.id == id_)
        return self.app.current.tree[answer.id]

    def ask_nobody(self) -> MessageModel:
        """A question to a cloud that is not there."""
        if self._client is not None:
            from device_sdk import ConnectError

            self._client.script = Script(error=ConnectError("no connection to ws://127.0.0.1:9: refused"))
        self.app.change(mode=Mode.ONLY_IN_CLOUD, device_model="", cloud="remote", cloud_url="ws://127.0.0.1:9")
        self.app.new_chat()
        self.app.current.send("Is anybody there?")
        answer = self.app.current.tree.path()[-1]
        self.wait_whole(answer)
        return answer

    # --- inside --------------------------------------------------------------------------------------------------

    def _holder(self, tell: Callable[[SideState], None]) -> StageHolder | ScriptedHolder:
        if self._client is None:
            return StageHolder(tell)
        holder = ScriptedHolder(self._client)
        holder.tell = tell
        return holder

    def _kill(self) -> None:
        holder = self._program.holder
        if isinstance(holder, StageHolder) and holder.stage is not None and holder.stage.cloud is not None:
            asyncio.run_coroutine_threadsafe(holder.stage.cloud.kill(), self._program.thread.loop)

    def _dialog(self) -> SettingsDialog | None:
        found = [dialog for dialog in self.window.findChildren(SettingsDialog) if dialog.isVisible()]
        return found[0] if found else None

    def _until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"the tour waited for {_PATIENCE_S:g} s in vain")
            self._spin(20)

    @staticmethod
    def _spin(milliseconds: int) -> None:
        loop = QEventLoop()
        QTimer.singleShot(milliseconds, loop.quit)
        loop.exec()
