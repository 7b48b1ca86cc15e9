"""The tables, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3

from demos.chat.history.errors import HistoryNewerError

#: Version n is reached by the first n of these. Never change one that was released; add one.
MIGRATIONS = (
    # 1: conversations, their messages as a tree, and the tokens of an answer that is not whole yet.
    """
    CREATE TABLE conversation (
        id TEXT PRIMARY KEY, title TEXT NOT NULL, pinned INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL, updated_at REAL NOT NULL, leaf TEXT, draft TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE message (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
        conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
        parent TEXT REFERENCES message (id) ON DELETE CASCADE, role TEXT NOT NULL, text TEXT NOT NULL,
        state TEXT NOT NULL, details TEXT NOT NULL, created_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX message_of_conversation ON message (conversation, created_at);
    CREATE INDEX message_of_parent ON message (parent);
    CREATE TABLE attachment (
        message TEXT NOT NULL REFERENCES message (id) ON DELETE CASCADE, position INTEGER NOT NULL,
        name TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (message, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE token (
        message TEXT NOT NULL REFERENCES message (id) ON DELETE CASCADE, position INTEGER NOT NULL,
        source TEXT NOT NULL, text TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (message, position)
    ) STRICT, WITHOUT ROWID;
    """,
    # 2: full-text search, kept by triggers so that no way of writing can forget it.
    """
    CREATE VIRTUAL TABLE search USING fts5 (
        text, conversation UNINDEXED, tokenize = 'unicode61 remove_diacritics 2'
    );
    INSERT INTO search (rowid, text, conversation) SELECT number, text, conversation FROM message;
    CREATE TRIGGER message_inserted AFTER INSERT ON message BEGIN
        INSERT INTO search (rowid, text, conversation) VALUES (new.number, new.text, new.conversation);
    END;
    CREATE TRIGGER message_updated AFTER UPDATE OF text ON message BEGIN
        UPDATE search SET text = new.text WHERE rowid = new.number;
    END;
    CREATE TRIGGER message_deleted AFTER DELETE ON message BEGIN
        DELETE FROM search WHERE rowid = old.number;
    END;
    """,
    # 3: documents that wait for a question. A conversation without a message is what was never sent.
    """
    CREATE TABLE pending (
        conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE, position INTEGER NOT NULL,
        name TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (conversation, position)
    ) STRICT, WITHOUT ROWID;
    """,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file up to date; two processes that start at once do it once. Raises HistoryNewerError."""
    if _version(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        version = _version(connection)
        if version > len(MIGRATIONS):
            raise HistoryNewerError(
                f"the history was written by a newer pd-chat (format {version}, this one knows {len(MIGRATIONS)}): "
                "update pd-chat, or choose another folder with --data"
            )
        for script in MIGRATIONS[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> list[str]:
    """`executescript` would commit in between."""
    statements, lines = [], ""
    for line in script.splitlines():
        lines += line + "\n"
        if lines.strip() and sqlite3.complete_statement(lines):
            statements.append(lines)
            lines = ""
    return statements
