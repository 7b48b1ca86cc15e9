"""From settings to a backend whose engines are processes on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cloud_service.backend import Opened
from cloud_service.loading import refinery_for
from cloud_service.metrics import Metrics
from cloud_service.pool import frames
from cloud_service.pool.backend import PoolBackend, PoolError
from cloud_service.pool.instance import Start
from cloud_service.pool.process import COMMAND
from cloud_service.pool.restarts import RestartPolicy
from cloud_service.pool.roles import Rebalancer, assign
from cloud_service.scheduler.slack import Targets
from cloud_service.settings import SECRET_FIELDS, Settings
from model_runtime.core import Tokenizer
from model_runtime.loading import load_tokenizer_of


async def open_pool(
    settings: Settings,
    metrics: Metrics,
    failed: Callable[[str], None],
    *,
    command: Sequence[str] = COMMAND,
    load_tokenizer: Callable[[Settings], Tokenizer] | None = None,
) -> Opened:
    """Waits until an engine process is ready; the others join when they are. `failed` as of `PoolBackend`. `command`
    is what an engine process runs, `load_tokenizer` loads the tokenizer of its engine. Raises PoolError, LoadError for
    the tokenizer, RefinementError, CalibrationError."""
    load = frames.Load(settings.model_dump(mode="json", exclude=set(SECRET_FIELDS)))
    silence = settings.instance_timeout_ms / 1000
    start = Start(command, load, RestartPolicy(limit=settings.restart_limit), silence)
    backend = PoolBackend(
        start,
        assign(settings.instances or 1, settings.roles),
        queue_depth=settings.queue_depth,
        places=settings.max_sequences,
        targets=Targets(settings.first_token_target_ms / 1000, settings.assumed_pace_ms / 1000),
        rebalancer=None if settings.rebalance == "off" else Rebalancer(),
        metrics=metrics,
        failed=failed,
    )
    try:
        info = await backend.open()
        tokenizer = await asyncio.to_thread(load_tokenizer or _tokenizer, settings)
        if tokenizer.fingerprint != info.tokenizer_fingerprint:
            raise PoolError("the tokenizer is another one than that of the engine: the model's files have changed")
        backend.tokenizer = tokenizer
        refinery = await asyncio.to_thread(refinery_for, settings, info)
    except BaseException:
        await backend.aclose()
        raise
    return Opened(backend, info, tokenizer, refinery)


def _tokenizer(settings: Settings) -> Tokenizer:
    return load_tokenizer_of(settings.model, settings.engine)
