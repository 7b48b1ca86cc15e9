"""The thread that writes to the disk: SQLite waits for it, and nothing else should."""

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

        Raises HistoryError. Cancelled, work that has not begun is not done; `written` first, where it must be.
        """
        return await self.beside(lambda: self._do(work))

    async def beside(self, work: Callable[[], T]) -> T:
        """The result of `work`, which writes something else in the same order. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def written(self) -> None:
        """Returns when everything that was asked for so far is done."""
        await self.beside(lambda: None)

    def _do(self, work: Callable[[Store], T]) -> T:
        if self._store is None:
            self._store = Store(self._path)
        return work(self._store)

    def close(self) -> None:
        """What was asked for is still done, unless its await was cancelled. Blocks until then."""
        self._thread.submit(lambda: self._store.close() if self._store else None)
        self._thread.shutdown(wait=True)
