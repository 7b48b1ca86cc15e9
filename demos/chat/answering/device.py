"""The device's model: loaded in a thread, with progress, and wrapped in the hardware that it stands for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from demos.chat.answering.states import SideState
from model_runtime.core import Cancellation
from model_runtime.emulated import EmulatedEngine
from model_runtime.loading import LoadProgress, load_engine
from model_runtime.profiles import load_profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from demos.chat.answering.setup import DeviceSetup
    from demos.chat.answering.states import Phase
    from model_runtime.core import Engine


async def load_device(setup: DeviceSetup, tell: Callable[[SideState], None]) -> Engine:
    """Raises LoadError. Cancelling the await ends the load; `tell` may be called from any thread."""
    cancellation = Cancellation()

    def told(progress: LoadProgress) -> None:
        phase: Phase = "downloading" if progress.stage == "download" else "loading"
        tell(SideState("device", phase, progress.fraction or None))

    def load() -> Engine:
        profile = load_profile(setup.profile) if setup.profile else None
        # One thread where hardware is emulated: the cloud's process shares the machine, as in `pd-demo`.
        threads = 1 if profile else None
        engine = load_engine(setup.model, threads=threads, cancellation=cancellation, progress=told)
        return EmulatedEngine(engine, profile) if profile else engine

    loading = asyncio.ensure_future(asyncio.to_thread(load))
    try:
        return await asyncio.shield(loading)
    except asyncio.CancelledError:
        cancellation.cancel()
        loading.add_done_callback(_discard)
        raise


def _discard(loading: asyncio.Future[Engine]) -> None:
    """A load that ended just as it was cancelled."""
    if not loading.cancelled() and loading.exception() is None:
        loading.result().shutdown()


def title_of(setup: DeviceSetup | None, engine: Engine | None = None) -> str:
    """Model and hardware in words, with what is emulated called so."""
    if setup is None:
        return "no model"
    name = engine.info.model if engine is not None else setup.model
    path = Path(name)
    # Every export is called `model`; its folder says which one it is.
    short = path.parent.name if path.stem.startswith("model") and path.parent.name else path.name
    if setup.profile is None:
        return f"{short} on this machine"
    return f"{short} on an emulated {load_profile(setup.profile).title}"
