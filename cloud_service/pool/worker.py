"""One engine process: an engine, its scheduler without a queue, and a pair of pipes to the service that started it.

Standard input brings frames, standard output takes them; the end of the input is the end of the process, so that none
outlives its service. It ignores SIGINT and SIGTERM, which a terminal or a supervisor sends to every process of a
service: when to end is the service's to say, once its generations have finished.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeAlias

from cloud_service.loading import load
from cloud_service.logs import configure_logging
from cloud_service.pool import frames
from cloud_service.pool.desk import WorkerDesk
from cloud_service.pool.outbox import Outbox
from cloud_service.refinement.factory import ATTENTIVE
from cloud_service.scheduler.policy import PassBudget
from cloud_service.scheduler.runner import Runner
from cloud_service.scheduler.slack import Targets
from cloud_service.settings import Settings
from model_runtime.core import Cancellation, Engine
from model_runtime.loading import LoadProgress

logger = logging.getLogger(__name__)

#: Blocks until the engine is there. Whatever it raises is the reason why the model cannot be served.
LoadEngine: TypeAlias = Callable[[Settings, Cancellation, Callable[[LoadProgress], None]], Engine]

_READ = 1 << 16
#: How long a pass gets to end when the process does, in seconds.
_CLOSE = 2.0
#: A report of a load's progress is worth a frame where it is so much further.
_STEP = 0.05


def load_alone(settings: Settings, cancellation: Cancellation, progress: Callable[[LoadProgress], None]) -> Engine:
    """The engine as the service would load it for itself; what scores prompts is the service's own."""
    if settings.refine not in ATTENTIVE:
        settings = settings.model_copy(update={"refine": "off"})
    engine, refinery = load(settings, cancellation, progress)
    refinery.close()
    return engine


def main(load_engine: LoadEngine = load_alone) -> int:
    """The process."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not get among the frames
    outbox = Outbox(output)
    desk = WorkerDesk(outbox)
    outbox.start(desk.state)
    cancellation = Cancellation()
    splitter = frames.Splitter()
    while data := os.read(sys.stdin.fileno(), _READ):
        for raw in splitter.feed(data):
            frame = frames.to_engine.decode(raw)
            if isinstance(frame, frames.Load):
                arguments = (frame, load_engine, desk, outbox, cancellation)
                threading.Thread(target=_load, args=arguments, daemon=True).start()
            else:
                outbox.post(lambda frame=frame: desk.heed(frame))  # type: ignore[misc]
    cancellation.cancel()
    desk.close(_CLOSE)
    # Threads of libraries may still be at work; there is nothing left that they could spoil.
    os._exit(0)


def _load(
    frame: frames.Load, load_engine: LoadEngine, desk: WorkerDesk, outbox: Outbox, cancellation: Cancellation
) -> None:
    told = [-1.0]

    def tell(progress: LoadProgress) -> None:
        if abs(progress.fraction - told[0]) >= _STEP:
            told[0] = progress.fraction
            outbox.say(frames.Progressing(progress.stage, progress.fraction))

    try:
        settings = Settings(**frame.settings)
        configure_logging(settings)
        engine = load_engine(settings, cancellation, tell)
    except Exception as error:
        outbox.say(frames.NotLoaded(f"{error}" or type(error).__name__))
        outbox.end(0)
        return
    desk.open(_runner(settings, engine, desk, outbox))
    outbox.say(frames.Loaded(engine.info))


def _runner(settings: Settings, engine: Engine, desk: WorkerDesk, outbox: Outbox) -> Runner:
    chunk_length = engine.info.capabilities.chunk_length or 1

    def failed(cause: str) -> None:
        outbox.say(frames.Broke(cause))
        outbox.end(1)

    return Runner(
        engine,
        budget=PassBudget(max(settings.pass_tokens, 2 * chunk_length), chunk_length),
        places=min(settings.max_sequences, engine.info.max_sequences),
        queue_depth=0,
        targets=Targets(settings.first_token_target_ms / 1000, settings.assumed_pace_ms / 1000),
        keeps_prefixes=settings.prefix_cache != "off",
        holds_queue=False,
        post=outbox.post,
        observe=desk.observe,
        failed=failed,
    )


if __name__ == "__main__":
    sys.exit(main())
