"""A user's cap on cloud tokens per day, in a small file that outlives the app."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path

from filelock import FileLock, Timeout

from device_sdk.errors import ConfigurationError

logger = logging.getLogger(__name__)

#: Seconds to wait for another process that counts in the same file.
LOCK_TIMEOUT = 2.0


class DailyCap:
    """At most `tokens` from the cloud on a day, over all clients that share `path`. `today` says which day it is.

    Counted when an answer has ended; answers under way together may each have been allowed all that was left. A file
    that cannot be read counts as used up, for a cap that forgets is none: delete it to begin anew.
    """

    def __init__(self, path: str | Path, tokens: int, *, today: Callable[[], date] = date.today) -> None:
        if tokens < 0:
            raise ConfigurationError(f"a cap of {tokens} cloud tokens per day is none; it must be at least 0")
        self.tokens = tokens
        self._path = Path(path).expanduser()
        self._today = today
        self._file_lock = FileLock(f"{self._path}.lock", timeout=LOCK_TIMEOUT, thread_local=False)
        self._saving = threading.Lock()
        #: Spent here and not written: what the file does not know yet.
        self._unwritten = 0

    def left(self) -> int:
        """Tokens that may still come from the cloud today."""
        used = self._used()
        return 0 if used is None else max(self.tokens - used - self._unwritten, 0)

    def spend(self, tokens: int) -> None:
        """So many tokens came: they count from here on, and for other processes from the next `save` on."""
        self._unwritten += tokens

    def save(self) -> None:
        """Safe from any thread. Blocks for LOCK_TIMEOUT at most; a file that cannot be written is a warning, and the
        tokens count until this process ends."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._saving, self._file_lock:
                used, fresh = self._used(), self._unwritten
                if used is None or not fresh:
                    return
                new = self._path.with_suffix(".new")
                day = self._today().isoformat()
                new.write_text(json.dumps({"day": day, "cloud_tokens": used + fresh}), encoding="utf-8")
                new.replace(self._path)
                self._unwritten -= fresh
        except (OSError, Timeout) as error:
            logger.warning("the day's cloud tokens could not be written to %s: %s", self._path, error)

    def _used(self) -> int | None:
        """As the file says, of today; None where it makes no sense."""
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            day, used = date.fromisoformat(record["day"]), record["cloud_tokens"]
            if not isinstance(used, int) or used < 0:
                raise ValueError(f"cloud_tokens is {used!r}")
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is no record of the day's cloud tokens (%s): no more are used", self._path, error)
            return None
        return used if day == self._today() else 0
