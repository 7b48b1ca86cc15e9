"""HistoryError
├── HistoryNewerError    the file was written by a newer version of this program
├── HistoryDamagedError  the file is not a database, or a damaged one
├── HistoryFullError     the disk is full
├── HistoryBusyError     another process held the file for too long
├── HistoryAccessError   the file cannot be opened or written
├── HistoryGoneError     the conversation was deleted in another window
└── BadImportError       what was given to import is no export of this program
"""

from __future__ import annotations

import sqlite3


class HistoryError(Exception):
    """Base; the message says what was wrong and what to do."""


class HistoryNewerError(HistoryError):
    """Written by a newer version of this program."""


class HistoryDamagedError(HistoryError):
    """Not a database, or a damaged one."""


class HistoryFullError(HistoryError):
    """The disk is full."""


class HistoryBusyError(HistoryError):
    """Another process held the file for too long."""


class HistoryAccessError(HistoryError):
    """The file cannot be opened or written."""


class HistoryGoneError(HistoryError):
    """The conversation was deleted in another window."""


class BadImportError(HistoryError):
    """No export of this program."""


def explain(error: sqlite3.Error, path: object) -> HistoryError:
    """Ours for one of SQLite's, by its primary result code."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_FULL:
            return HistoryFullError(
                f"{path} cannot grow: the disk is full. Free some space; the chat goes on and is saved then."
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return HistoryBusyError(f"{path} is held by another program. Close other windows of pd-chat and try again.")
        case sqlite3.SQLITE_CONSTRAINT:
            return HistoryGoneError("This conversation was deleted in another window; what follows is not kept.")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return HistoryDamagedError(
                f"{path} is damaged ({error}). Move it away to begin anew, or put a backup in its place."
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_PERM:
            return HistoryAccessError(f"{path} cannot be used ({error}). Check the folder's permissions and the disk.")
        case _:
            return HistoryError(f"{path}: {error}")
