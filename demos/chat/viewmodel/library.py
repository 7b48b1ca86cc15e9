"""The list of conversations: newest first, searched, renamed, pinned, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos.chat.emitter import Emitter

if TYPE_CHECKING:
    from demos.chat.history.records import Summary
    from demos.chat.viewmodel.services import Services


class LibraryModel:
    """Refreshed after each write of this window, and by `look` after another window's."""

    def __init__(self, services: Services) -> None:
        self.changed: Emitter[None] = Emitter()
        self.renamed: Emitter[tuple[str, str]] = Emitter()
        self.deleted: Emitter[str] = Emitter()
        self.summaries: list[Summary] = []
        self.query = ""
        self._services = services
        self._version: int | None = None
        self._stale = self._reading = False
        services.written.subscribe(lambda _: self.refresh())

    def search(self, query: str) -> None:
        self.query = query
        self.refresh()

    def refresh(self) -> None:
        """At most one reading at a time; what changes meanwhile is read behind it."""
        if self._reading:
            self._stale = True
            return
        self._reading, self._stale = True, False
        query = self.query
        self._services.background.run(
            lambda: self._services.history.do(lambda store: store.conversations(query)), self._read, self._failed
        )

    def look(self) -> None:
        """Whether another window or process has written; cheap, called every few seconds. What could not be saved is
        tried again."""
        self._services.try_again()

        def seen(version: int) -> None:
            if version != self._version:
                self._version = version
                self.refresh()

        self._services.background.run(
            lambda: self._services.history.do(lambda store: store.version()), seen, lambda _: None
        )

    def rename(self, id_: str, title: str) -> None:
        title = " ".join(title.split())
        if title:
            self._services.write(lambda store: store.rename(id_, title))
            self.renamed.emit((id_, title))

    def pin(self, id_: str, pinned: bool) -> None:
        self._services.write(lambda store: store.pin(id_, pinned))

    def delete(self, id_: str) -> None:
        self._services.write(lambda store: store.delete(id_))
        self.deleted.emit(id_)

    def _read(self, summaries: list[Summary]) -> None:
        self._reading = False
        if summaries != self.summaries:
            self.summaries = summaries
            self.changed.emit(None)
        if self._stale:
            self.refresh()

    def _failed(self, error: Exception) -> None:
        self._reading = False
        self._services.unsaved(error)
