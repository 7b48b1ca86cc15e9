"""Who sends a request: the keys of the key file, looked at again when it changes."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from cloud_service.auth import Caller
from cloud_service.keys.file import KeyFileError, read_keys
from cloud_service.keys.records import KeyRecord, digest

logger = logging.getLogger(__name__)

#: The file is looked at no more often, in seconds: how long a key that was revoked may still open something.
REFRESH = 1.0


class KeyRing:
    """The keys in `file`; None lets everybody in (which `refuse_open_service` allows on loopback only)."""

    def __init__(self, file: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises KeyFileError."""
        self._file = file
        self._clock = clock
        self._keys: dict[str, KeyRecord] = {}
        self._seen = clock()
        self._stamp: tuple[int, int, int] | None = None
        if file is not None:
            self._stamp = _stamp(file)
            self._keys = read_keys(file)

    def identify(self, authorization: str | None, address: str) -> Caller | None:
        """Who sends the `Authorization` header; None where it holds no valid key."""
        if self._file is None:
            return Caller(address)
        self._refresh()
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        given = digest(token.strip())
        # Every key is compared, so that the time taken does not tell which one came close.
        matches = [name for name, record in self._keys.items() if hmac.compare_digest(given, record.sha256)]
        return Caller(matches[0], self._keys[matches[0]].limits, given) if matches else None

    def still_valid(self, caller: Caller) -> bool:
        """Whether the key that `caller` came with was not revoked since, nor replaced under its name."""
        if self._file is None:
            return True
        self._refresh()
        record = self._keys.get(caller.name)
        return record is not None and record.sha256 == caller.key_digest

    def _refresh(self) -> None:
        now = self._clock()
        if self._file is None or now - self._seen < REFRESH:
            return
        self._seen = now
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        try:
            self._keys = read_keys(self._file)
        except KeyFileError as error:
            # A slip of an editor must not lock everybody out, nor let anybody in: what was known stays.
            logger.error("the key file is not usable, the keys stay as they were: %s", error)
        else:
            self._stamp = stamp
            logger.info("the key file was read again, it holds %d keys", len(self._keys))


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes when the file does, also where it is a link that is turned to another one."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
