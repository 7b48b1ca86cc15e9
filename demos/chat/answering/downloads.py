"""A model from the hub, fetched before it is needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from model_runtime.core import Cancellation
from model_runtime.hub import DownloadProgress, pull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def download(spec: str, tell: Callable[[DownloadProgress], None]) -> Path:
    """Where it is now. Cancelling the await stops it within a moment; what has arrived is kept, and the next download
    goes on from there. `tell` is called in another thread. Raises LoadError."""
    cancellation = Cancellation()
    work = asyncio.ensure_future(asyncio.to_thread(pull, spec, cancellation=cancellation, progress=tell))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancellation.cancel()
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
