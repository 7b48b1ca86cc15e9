"""The history's own thread: SQLite waits for the disk, and nothing else should."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from demos.chat.history.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")


class History:
    """Does things with the store, one after the other, in the order in which they were asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "history")
        self._store: Store | None = None

    async def do(self, work: Callable[[Store], T]) -> T:
        """The result of `work` on the store, which is opened when first needed and tried again where that failed.

        Raises HistoryError. Cancelling the await does not undo the work.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    def _do(self, work: Callable[[Store], T]) -> T:
        if self._store is None:
            self._store = Store(self._path)
        return work(self._store)

    def close(self) -> None:
        """What was asked for is still done. Blocks until then."""
        self._thread.submit(lambda: self._store.close() if self._store else None)
        self._thread.shutdown(wait=True)
