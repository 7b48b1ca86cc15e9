"""Reads and writes the history. One connection, one thread; several processes may have the same file open."""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from demos.chat.history.errors import HistoryAccessError, HistoryGoneError, explain
from demos.chat.history.listing import listed
from demos.chat.history.records import Attachment, Conversation, Details, Message, Run, Summary
from demos.chat.history.schema import migrate
from device_sdk import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

#: How long a write waits for another process's.
_BUSY_MS = 5_000
#: An unfinished answer without a new token for so long is nobody's any more: its process is gone.
ABANDONED_AFTER_S = 20.0


class Store:
    """Every method raises HistoryError. A write is on disk, as far as a crash of this process goes, when it returns."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970. Creates the file and its folder where they are missing."""
        self._path = path
        self._clock = clock
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HistoryAccessError(
                f"{path.parent} cannot be made ({error.strerror}); choose another --data"
            ) from None
        with self._explained():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_MS / 1000, check_same_thread=False)
        try:
            with self._explained():
                self._db.execute("PRAGMA journal_mode = WAL")
                # A commit survives the crash of this program; only a power cut may take the last ones, never the file.
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute("PRAGMA foreign_keys = ON")
                migrate(self._db)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    # --- reading -------------------------------------------------------------------------------------------------

    def version(self) -> int:
        """Changes whenever another connection has written."""
        with self._explained():
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def conversations(self, query: str = "") -> list[Summary]:
        """As `listing.listed`."""
        with self._explained():
            return listed(self._db, query)

    def begun(self) -> list[str]:
        """The ids of all conversations in which something was asked, oldest first; a list on a screen holds fewer."""
        with self._explained():
            rows = self._db.execute(
                "SELECT id FROM conversation c WHERE EXISTS (SELECT 1 FROM message WHERE conversation = c.id) "
                "ORDER BY created_at"
            ).fetchall()
        return [row[0] for row in rows]

    def unsent(self) -> Conversation | None:
        """What was written last and never sent."""
        with self._explained():
            row = self._db.execute(
                "SELECT id FROM conversation c WHERE NOT EXISTS (SELECT 1 FROM message WHERE conversation = c.id) "
                "ORDER BY updated_at DESC LIMIT 1"
            ).fetchone()
        return None if row is None else self.load(row[0])

    def load(self, conversation: str) -> Conversation:
        """Raises HistoryGoneError where it was deleted, here or in another window."""
        with self._transaction("DEFERRED"):
            row = self._db.execute(
                "SELECT id, title, pinned, created_at, updated_at, leaf, draft FROM conversation WHERE id = ?",
                (conversation,),
            ).fetchone()
            if row is None:
                raise HistoryGoneError("this conversation is gone: it was deleted in another window")
            messages = self._db.execute(
                "SELECT id, parent, role, text, state, details, created_at FROM message WHERE conversation = ? "
                "ORDER BY number",
                (conversation,),
            ).fetchall()
            loaded = tuple(self._message(message) for message in messages)
            pending = self._attachments("pending", "conversation", conversation)
        summary = Summary(row[0], row[1], bool(row[2]), row[3], row[4], unsent=not loaded)
        return Conversation(summary, loaded, row[5], row[6], pending)

    def _message(self, row: tuple[Any, ...]) -> Message:
        id_, parent, role, text, state, details, created_at = row
        attachments = self._attachments("attachment", "message", id_)
        try:
            read = msgspec.json.decode(details, type=Details)
        except msgspec.DecodeError:
            # Written by a version that knew other words for it: the text is what matters.
            read = Details()
        if state == "streaming":
            text, runs, last = self._unfinished(id_)
            read = Details(runs)
            if self._clock() - max(last, created_at) > ABANDONED_AFTER_S:
                state = "cut_off"
        return Message(id_, parent, role, text, state, attachments, read, created_at)

    def _attachments(self, table: str, of: str, id_: str) -> tuple[Attachment, ...]:
        rows = self._db.execute(f"SELECT name, kind, text FROM {table} WHERE {of} = ? ORDER BY position", (id_,))  # noqa: S608
        return tuple(Attachment(*found) for found in rows)

    def _unfinished(self, message: str) -> tuple[str, tuple[Run, ...], float]:
        text, runs, last = "", list[Run](), 0.0
        rows = self._db.execute("SELECT source, text, at FROM token WHERE message = ? ORDER BY position", (message,))
        for source, piece, at in rows:
            text, last = extend(text, runs, Source(source), piece), at
        return text, tuple(runs), last

    # --- writing -------------------------------------------------------------------------------------------------

    def create(self, conversation: str, title: str) -> None:
        """Empty: nothing was asked yet. Called again, it only gets its title."""
        now = self._clock()
        with self._transaction():
            self._db.execute(
                "INSERT INTO conversation (id, title, created_at, updated_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET title = excluded.title, updated_at = excluded.updated_at",
                (conversation, title, now, now),
            )

    def add(self, conversation: str, message: Message) -> None:
        """Append `message` and show its branch."""
        with self._transaction():
            self._insert(conversation, message)
            self._db.execute(
                "UPDATE conversation SET leaf = ?, updated_at = ? WHERE id = ?",
                (message.id, self._clock(), conversation),
            )

    def append(self, message: str, position: int, source: Source, text: str) -> None:
        """One token of an answer under way. After a crash nothing that was appended is lost."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO token (message, position, source, text, at) VALUES (?, ?, ?, ?, ?)",
                (message, position, source.value, text, self._clock()),
            )

    def finish(self, message: Message) -> None:
        """The answer is as it will stay."""
        with self._transaction():
            self._db.execute(
                "UPDATE message SET text = ?, state = ?, details = ? WHERE id = ?",
                (message.text, message.state, msgspec.json.encode(message.details).decode(), message.id),
            )
            self._db.execute("DELETE FROM token WHERE message = ?", (message.id,))

    def show(self, conversation: str, leaf: str | None) -> None:
        self._update(conversation, "leaf = ?", leaf)

    def rename(self, conversation: str, title: str) -> None:
        self._update(conversation, "title = ?", title)

    def pin(self, conversation: str, pinned: bool) -> None:
        self._update(conversation, "pinned = ?", int(pinned))

    def draft(self, conversation: str, text: str) -> None:
        self._update(conversation, "draft = ?", text)

    def pend(self, conversation: str, attachments: Sequence[Attachment]) -> None:
        """These, and no others, wait for the next question."""
        with self._transaction():
            self._db.execute("DELETE FROM pending WHERE conversation = ?", (conversation,))
            self._attach("pending", "conversation", conversation, attachments)

    def discard(self, conversation: str) -> None:
        """Forget it if nothing was ever asked in it."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM conversation WHERE id = ? AND NOT EXISTS (SELECT 1 FROM message WHERE conversation = ?)",
                (conversation, conversation),
            )

    def delete(self, conversation: str) -> None:
        with self._transaction():
            # One by one, as a cascade along `parent` is as deep as the conversation is long.
            self._db.execute("UPDATE message SET parent = NULL WHERE conversation = ?", (conversation,))
            self._db.execute("DELETE FROM conversation WHERE id = ?", (conversation,))

    def insert(self, conversation: Conversation) -> None:
        """A whole one: from an import or a branch, or one of which earlier writes failed."""
        summary = conversation.summary
        with self._transaction():
            self._db.execute(
                "INSERT INTO conversation (id, title, pinned, created_at, updated_at, leaf, draft) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET title = excluded.title, "
                "updated_at = excluded.updated_at, leaf = excluded.leaf, draft = excluded.draft",
                (summary.id, summary.title, int(summary.pinned), summary.created_at, summary.updated_at,
                 conversation.leaf, conversation.draft),
            )  # fmt: skip
            for message in conversation.messages:
                self._insert(summary.id, message)
            self._db.execute("DELETE FROM pending WHERE conversation = ?", (summary.id,))
            self._attach("pending", "conversation", summary.id, conversation.pending)

    def _insert(self, conversation: str, message: Message) -> None:
        details = msgspec.json.encode(message.details).decode()
        self._db.execute(
            "INSERT INTO message (id, conversation, parent, role, text, state, details, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET text = excluded.text, "
            "state = excluded.state, details = excluded.details",
            (message.id, conversation, message.parent, message.role, message.text, message.state, details,
             message.created_at),
        )  # fmt: skip
        self._attach("attachment", "message", message.id, message.attachments)
        if message.state != "streaming":
            self._db.execute("DELETE FROM token WHERE message = ?", (message.id,))

    def _attach(self, table: str, to: str, id_: str, attachments: Sequence[Attachment]) -> None:
        self._db.executemany(
            f"INSERT OR IGNORE INTO {table} ({to}, position, name, kind, text) VALUES (?, ?, ?, ?, ?)",  # noqa: S608
            [(id_, i, item.name, item.kind, item.text) for i, item in enumerate(attachments)],
        )

    def _update(self, conversation: str, what: str, value: str | int | None) -> None:
        with self._transaction():
            self._db.execute(f"UPDATE conversation SET {what} WHERE id = ?", (value, conversation))  # noqa: S608

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """IMMEDIATE takes the write lock at once, so that two windows wait for each other and never fail halfway."""
        with self._explained():
            self._db.execute(f"BEGIN {kind}")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself where the disk is full.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explain(error, self._path) from error


def extend(text: str, runs: list[Run], source: Source, piece: str) -> str:
    """`text` with `piece` behind it; `runs` tells who said it."""
    stop = len(text) + len(piece)
    if runs and runs[-1].source is source:
        runs[-1] = Run(source, runs[-1].start, stop)
    elif piece:
        runs.append(Run(source, len(text), stop))
    return text + piece
