"""One large file over HTTP: resumed, checked, and stopped between two small pieces."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]  # loaded on first use

from model_runtime.errors import DiskFullError, DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash as Hash
    from pathlib import Path
    from typing import BinaryIO

log = logging.getLogger(__name__)

#: What the Hub's HTTP client raises, whichever library it is built on in this version.
HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]

_PIECE = 256 * 1024
#: Connecting and each wait for bytes; a connection that is silent for longer counts as lost.
_SILENCE_S = 10.0
_TRIES = 5
#: Answers that may be another one in a moment.
_PASSING = frozenset([408, 429, 500, 502, 503, 504])


class Stopped(Exception):  # noqa: N818 - an outcome that the caller asked for, not an error
    """`stopped` said so."""


def fetch(
    url: str,
    headers: dict[str, str],
    target: Path,
    *,
    size: int,
    digest: Hash,
    arrived: Callable[[int], None],
    stopped: Callable[[], bool],
) -> None:
    """Download `url` to `target`, which appears only when it is complete and `digest` of it is its name.

    What has arrived is kept beside it and continued: by this call after a lost connection (five in a row without one
    new byte end it), by the next call after anything else. `arrived` is told how many more bytes are there, also of
    what an earlier call left; less than zero where that turned out useless. Another process that downloads the same
    is waited for. Raises Stopped soon after `stopped` returns True, DiskFullError, DownloadError, and what the Hub's
    client raises.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".pd-partial")
    with _only_writer(partial, stopped):
        if target.exists():  # another process was faster
            arrived(size)
            return
        transfer = _Transfer(url, headers, partial, size, digest, arrived, stopped)
        transfer.run()
        if transfer.done != size or transfer.digest.hexdigest() != target.name:
            partial.unlink()
            raise DownloadError(f"{url} arrived damaged ({transfer.done:,} bytes of {size:,}, or changed): try again")
        partial.replace(target)


class _Transfer:
    """The bytes of one file, over as many connections as it takes."""

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        partial: Path,
        size: int,
        digest: Hash,
        arrived: Callable[[int], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.done = 0
        self.digest = digest.copy()
        self._fresh = digest
        self._url = url
        self._headers = headers
        self._partial = partial
        self._size = size
        self._arrived = arrived
        self._stopped = stopped

    def run(self) -> None:
        if self._partial.exists() and self._partial.stat().st_size > self._size:
            self._partial.unlink()
        with self._partial.open("a+b") as file:
            file.seek(0)
            while piece := file.read(_PIECE):
                self._count(piece)
            self._check_space()
            lost = 0
            while self.done < self._size:
                before = self.done
                reason = self._receive(file)
                if self.done < self._size:
                    lost = lost + 1 if self.done <= before else 1
                    log.warning(
                        "lost the connection to %s at %d of %d bytes: %s", self._url, self.done, self._size, reason
                    )
                    if lost == _TRIES:
                        raise DownloadError(
                            f"{self._url} cannot be downloaded: lost the connection at {self.done:,} of {self._size:,} "
                            f"bytes ({reason}); try again to go on from there"
                        )
                    self._pause(0.1 * 2**lost)

    def _receive(self, file: BinaryIO) -> str:
        """Append what one connection brings; returns why it ended."""
        headers = {**self._headers, "Range": f"bytes={self.done}-", "Accept-Encoding": "identity"}
        try:
            with get_session().stream("GET", self._url, headers=headers, timeout=_SILENCE_S) as response:
                hf_raise_for_status(response)
                if response.status_code == 200 and self.done:  # a server that knows no ranges sends all of it
                    file.truncate(0)
                    self._arrived(-self.done)
                    self.done, self.digest = 0, self._fresh.copy()
                for piece in response.iter_bytes(_PIECE):
                    if self._stopped():
                        raise Stopped
                    file.write(piece)
                    self._count(piece)
        except HfHubHTTPError as error:
            if error.response.status_code not in _PASSING:
                raise
            return str(error)
        except HTTPError as error:
            return f"{type(error).__name__}: {error}"
        return "the server ended it early"

    def _count(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.done += len(piece)
        self._arrived(len(piece))

    def _check_space(self) -> None:
        needed, free = self._size - self.done, shutil.disk_usage(self._partial.parent).free
        if free < needed:
            raise DiskFullError(
                f"{self._url} needs {needed / 1e9:.2f} GB more in {self._partial.parent}, "
                f"where {free / 1e9:.2f} GB are free"
            )

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stopped():
                raise Stopped
            time.sleep(0.02)


@contextmanager
def _only_writer(partial: Path, stopped: Callable[[], bool]) -> Iterator[None]:
    lock = FileLock(f"{partial}.lock")
    while True:
        try:
            lock.acquire(timeout=0.1)
            break
        except Timeout:
            if stopped():
                raise Stopped from None
    try:
        yield
    finally:
        lock.release()
