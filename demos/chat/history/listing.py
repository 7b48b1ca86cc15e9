"""The list of conversations, and the search in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos.chat.history.records import Summary

if TYPE_CHECKING:
    import sqlite3

#: Enough for a list on a screen.
_LISTED = 500
#: What was never sent is called by its first words, or by its document.
_COLUMNS = """
    c.id, CASE WHEN c.title <> '' THEN c.title ELSE coalesce(
        nullif(trim(substr(c.draft, 1, 80)), ''),
        (SELECT name FROM pending WHERE conversation = c.id ORDER BY position LIMIT 1), '') END,
    c.pinned, c.created_at, c.updated_at,
    NOT EXISTS (SELECT 1 FROM message WHERE conversation = c.id) AS unsent
"""
_ORDER = f"ORDER BY unsent DESC, c.pinned DESC, c.updated_at DESC, c.id LIMIT {_LISTED}"


def listed(db: sqlite3.Connection, query: str) -> list[Summary]:
    """What was never sent first, then pinned ones, then newest first. With a query: the title or the draft holds it, or
    a message words that begin so. Raises sqlite3.Error."""
    words = query.split()
    if not words:
        rows = db.execute(f"SELECT {_COLUMNS}, '' FROM conversation c {_ORDER}").fetchall()  # noqa: S608
    else:
        match = " ".join('"' + word.replace('"', '""') + '"*' for word in words)
        title = "%" + query.strip().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        # The best match of each conversation lends it the snippet: with a bare min(), SQLite takes its row.
        rows = db.execute(
            f"""
            WITH hit AS MATERIALIZED (
                SELECT conversation, snippet(search, 0, '', '', '…', 10) AS snippet, rank AS place
                FROM search WHERE search MATCH ?
            ), found AS (SELECT conversation, snippet, min(place) FROM hit GROUP BY conversation)
            SELECT {_COLUMNS}, coalesce(found.snippet, '')
            FROM conversation c LEFT JOIN found ON found.conversation = c.id
            WHERE found.conversation IS NOT NULL OR c.title LIKE ? ESCAPE '\\' OR c.draft LIKE ? ESCAPE '\\' {_ORDER}
            """,  # noqa: S608 - only constants are put in
            (match, title, title),
        ).fetchall()
    return [Summary(row[0], row[1], bool(row[2]), row[3], row[4], row[6], bool(row[5])) for row in rows]
