"""The whole program as it is on the screen: one window's conversations, sides, settings."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from demos.chat import documents, preferences
from demos.chat.answering.downloads import download
from demos.chat.emitter import Emitter
from demos.chat.examples import Example, bundled
from demos.chat.history import exchange
from demos.chat.history.errors import BadImportError
from demos.chat.history.records import Attachment
from demos.chat.viewmodel import choices
from demos.chat.viewmodel.comparison import ComparisonModel
from demos.chat.viewmodel.conversation import ConversationModel
from demos.chat.viewmodel.downloads import DownloadModel
from demos.chat.viewmodel.library import LibraryModel
from demos.chat.viewmodel.problems import problem_of, side_problem
from demos.chat.viewmodel.services import Services
from demos.chat.viewmodel.sides import SidesModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from demos.chat.background import Background
    from demos.chat.history.records import Conversation
    from demos.chat.history.store import Store
    from demos.chat.history.worker import History
    from demos.chat.viewmodel.settings import Settings
    from demos.chat.viewmodel.sides import Holder

#: A paste longer than this becomes a document beside the question.
PASTED_DOCUMENT = 1_500


class AppModel:
    """Its methods are called on the screen's thread; none of them waits."""

    def __init__(
        self, background: Background, history: History, holder: Holder, settings: Settings, settings_path: Path
    ) -> None:
        self.sides = SidesModel(background, holder)
        self.services = Services(background, history, self.sides, settings)
        self.library = LibraryModel(self.services)
        #: Another conversation is shown.
        self.shown: Emitter[ConversationModel] = Emitter()
        self.settings_changed: Emitter[Settings] = Emitter()
        self.examples_changed: Emitter[list[Example]] = Emitter()
        #: Something went well and is worth a word.
        self.said: Emitter[str] = Emitter()
        self.trouble = self.services.trouble
        self.downloads = {side: DownloadModel(background, download) for side in ("device", "cloud")}
        self.examples: list[Example] = []
        self.current = ConversationModel(self.services)
        self._settings_path = settings_path
        self._open: dict[str, ConversationModel] = {}
        self.sides.failed.subscribe(lambda error: self.trouble.emit(problem_of(error)))
        self.sides.side_failed.subscribe(lambda state: self.trouble.emit(side_problem(state)))
        self.services.recovered.subscribe(lambda _: self.said.emit("Everything is saved again"))
        self.library.renamed.subscribe(self._renamed)
        self.library.deleted.subscribe(self._deleted)

    @property
    def settings(self) -> Settings:
        return self.services.settings

    def start(self, *, examples: bool = False) -> None:
        """Once the window is there: the history is read, what was never sent comes back, the sides are opened."""
        self.library.refresh()
        self.services.background.run(
            lambda: self.services.history.do(lambda store: store.unsent()), self._take_up, self.services.unsaved
        )
        self.sides.open(self.settings.setup())
        self.services.background.run(lambda: asyncio.to_thread(choices.read))
        if examples:
            self.services.background.run(lambda: asyncio.to_thread(bundled), self._examples_made)

    # --- conversations -------------------------------------------------------------------------------------------

    def new_chat(self) -> None:
        """An empty one; what was written and never sent stays in the list."""
        self._show(self.current if self.current.pristine else ConversationModel(self.services))

    def open(self, id_: str) -> None:
        if id_ == self.current.id:
            return
        if id_ in self._open:
            self._show(self._open[id_])
            return
        self.services.background.run(
            lambda: self.services.history.do(lambda store: store.load(id_)), self._loaded, self._could_not
        )

    def branch(self, message: str) -> None:
        """A conversation of its own that begins as this one did up to `message`."""
        record = self.current.record(message)
        try:
            copy = exchange.copy_of(record, f"{record.summary.title} (branch)")
        except BadImportError as error:  # pragma: no cover - a tree is in order
            return self._could_not(error)
        return self._insert([copy], lambda: self._loaded(copy))

    def compare(self, message: str) -> ComparisonModel | None:
        """The question that answer `message` is to, three ways. None while an answer is under way."""
        answer = self.current.tree[message]
        if self.current.busy or answer.parent is None:
            return None
        question = self.current.tree[answer.parent]
        return ComparisonModel(self.services, question.question, self.current.prompt(question.id), answer.answer)

    def ask_example(self, example: Example) -> None:
        """In a conversation of its own."""
        self.new_chat()
        self.current.attach(example.document)
        self.current.send(example.question)

    # --- documents -----------------------------------------------------------------------------------------------

    def attach(self, paths: Iterable[Path]) -> None:
        """Files to go with the next question; what cannot be read is told."""
        conversation = self.current
        for path in paths:
            self.services.background.run(
                partial(asyncio.to_thread, documents.read, path), conversation.attach, self._could_not
            )

    def paste(self, text: str) -> bool:
        """A long text becomes a document; False where it is short, and belongs into the question."""
        if len(text) < PASTED_DOCUMENT:
            return False
        number = sum(item.name.startswith("Pasted text") for item in self.current.pending) + 1
        self.current.attach(Attachment(f"Pasted text {number}", "text", text.strip()))
        return True

    # --- files ---------------------------------------------------------------------------------------------------

    def export(self, id_: str | None, path: Path) -> None:
        """One conversation, or all that were begun. As Markdown where the name says so, else as JSON."""

        def found(store: Store) -> list[Conversation]:
            return [store.load(each) for each in ([id_] if id_ else store.begun())]

        async def work() -> None:
            conversations = await self.services.history.do(found)
            markdown = path.suffix.lower() in (".md", ".markdown")
            text = "\n".join(map(exchange.to_markdown, conversations)) if markdown else exchange.to_json(conversations)
            await asyncio.to_thread(path.write_text, text, encoding="utf-8")

        self.services.background.run(work, lambda _: self.said.emit(f"Saved as {path}"), self._could_not)

    def import_(self, path: Path) -> None:
        """What was exported as JSON."""

        async def work() -> list[Conversation]:
            text = await asyncio.to_thread(path.read_bytes)
            return exchange.from_json(text.decode("utf-8", errors="replace"))

        def read(found: list[Conversation]) -> None:
            self._insert(found, lambda: self.said.emit(f"Imported {len(found)} from {path.name}"))

        self.services.background.run(work, read, self._could_not)

    # --- settings ------------------------------------------------------------------------------------------------

    def apply(self, settings: Settings) -> None:
        """Raises ValueError or BadInputError naming what is out of range; then nothing has changed."""
        settings.split()
        settings.sampling()
        before, self.services.settings = self.settings, settings
        if settings == before:
            return
        self.settings_changed.emit(settings)
        self._save_settings()
        if settings.setup() != before.setup():
            self.sides.open(settings.setup())

    def change(self, **changes: object) -> None:
        """As `apply`, of some fields."""
        self.apply(dataclasses.replace(self.settings, **changes))  # type: ignore[arg-type]

    def remember_window(self, width: int, height: int) -> None:
        """For the next time."""
        if self.settings.window != (width, height):
            self.services.settings = dataclasses.replace(self.settings, window=(width, height))
            self._save_settings()

    # --- inside --------------------------------------------------------------------------------------------------

    def _save_settings(self) -> None:
        settings = self.settings
        self.services.background.run(
            lambda: self.services.history.beside(lambda: preferences.save(self._settings_path, settings)),
            failed=self._could_not,
        )

    def _show(self, conversation: ConversationModel) -> None:
        before, self.current = self.current, conversation
        # An answer that still streams must be found again.
        if before.busy:
            self._open[before.id] = before
        self._open.pop(conversation.id, None)
        self._open = {id_: model for id_, model in self._open.items() if model.busy}
        self.shown.emit(conversation)
        if before.empty or conversation.empty:
            self.library.refresh()

    def _take_up(self, unsent: Conversation | None) -> None:
        """Unless something was begun meanwhile."""
        if unsent is not None and self.current.pristine:
            self._loaded(unsent)

    def _loaded(self, stored: Conversation) -> None:
        self._show(ConversationModel(self.services, stored))

    def _insert(self, conversations: list[Conversation], then: Callable[[], None]) -> None:
        def work(store: Store) -> None:
            for conversation in conversations:
                store.insert(conversation)

        def done(_: None) -> None:
            self.services.written.emit(None)
            then()

        self.services.background.run(lambda: self.services.history.do(work), done, self._could_not)

    def _renamed(self, change: tuple[str, str]) -> None:
        if change[0] == self.current.id:
            self.current.rename(change[1])
            self.shown.emit(self.current)

    def _deleted(self, id_: str) -> None:
        gone = self._open.pop(id_, None)
        if gone is not None:
            gone.stop()
        if id_ == self.current.id:
            self.current.stop()
            self.current = ConversationModel(self.services)
            self.shown.emit(self.current)

    def _examples_made(self, examples: list[Example]) -> None:
        self.examples = examples
        self.examples_changed.emit(examples)

    def _could_not(self, error: Exception) -> None:
        self.trouble.emit(problem_of(error))
