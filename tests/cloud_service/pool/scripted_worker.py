"""An engine process whose engine is scripted. The model's name says what goes wrong: `refuse` cannot be loaded, `die`
kills the process while loading, `hang` never ends its first pass, anything else works."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from cloud_service.pool.worker import main
from cloud_service.settings import Settings
from model_runtime.core import Cancellation, Engine
from model_runtime.errors import ModelNotFoundError
from model_runtime.loading import LoadProgress
from model_runtime.testing import Faults, ScriptedEngine


def load(settings: Settings, cancellation: Cancellation, progress: Callable[[LoadProgress], None]) -> Engine:
    progress(LoadProgress("load", 0.5))
    print("what a library prints on standard output harms nobody")  # noqa: T201
    if settings.model == "refuse":
        raise ModelNotFoundError("there is no such model")
    if settings.model == "die":
        os._exit(9)
    return ScriptedEngine(
        answer_length=100_000,
        max_sequences=settings.max_sequences + settings.kept_sequences,
        faults=Faults(hang_at=0) if settings.model == "hang" else Faults(),
        delay=lambda chunks: 0.002,
    )


if __name__ == "__main__":
    sys.exit(main(load))
