"""Loads what the settings name: the engine, on emulated hardware where they say so, and what scores its prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cloud_service.refinement.contract import Needs
from cloud_service.refinement.factory import ATTENTIVE, build_refinery
from cloud_service.refinement.refinery import Refinery
from cloud_service.settings import Settings
from model_runtime.core import AttentionTap, Cancellation, Chunk, Engine, EngineInfo, Logits
from model_runtime.emulated import EmulatedEngine
from model_runtime.errors import UnsupportedError
from model_runtime.loading import LoadProgress, load_engine
from model_runtime.profiles import load_profile


def load(
    settings: Settings, cancellation: Cancellation, progress: Callable[[LoadProgress], None] | None = None
) -> tuple[Engine, Refinery]:
    """Blocks. Raises LoadError, RefinementError, CalibrationError; what was loaded until then is freed."""
    profile = None if settings.emulate is None else load_profile(settings.emulate)
    engine = _load_engine(settings, cancellation, progress)
    try:
        refinery = refinery_for(settings, engine.info)
    except Exception:
        engine.shutdown()
        raise
    try:
        _warm_up(engine, refinery.needs)
    except Exception:
        refinery.close()
        engine.shutdown()
        raise
    return (engine if profile is None else EmulatedEngine(engine, profile)), refinery


def refinery_for(settings: Settings, info: EngineInfo) -> Refinery:
    """Raises RefinementError, CalibrationError, and LoadError for a scorer model."""

    def load_scorer(spec: str) -> Engine:
        return load_engine(spec, max_sequences=1, threads=settings.threads, tap_layers="all")

    return build_refinery(
        settings.refine,
        settings.model,
        info,
        calibrated=settings.refine_calibration,
        scorer_model=settings.refine_model,
        load_scorer=load_scorer,
    )


def _load_engine(
    settings: Settings, cancellation: Cancellation, progress: Callable[[LoadProgress], None] | None
) -> Engine:
    def loaded(tap_layers: tuple[int, ...] | Literal["all"]) -> Engine:
        return load_engine(
            settings.model,
            engine=settings.engine,
            context_length=settings.context_length,
            max_sequences=settings.max_sequences + (0 if settings.prefix_cache == "off" else settings.kept_sequences),
            kv_tokens=settings.kv_tokens,
            threads=settings.threads,
            providers=settings.providers,
            gpu_layers=settings.gpu_layers,
            tap_layers=tap_layers,
            cancellation=cancellation,
            progress=progress,
        )

    if settings.refine not in ATTENTIVE:
        return loaded(())
    try:
        return loaded("all")
    except UnsupportedError:  # sliding windows, recurrent layers: such a model is served without
        return loaded(())


def _warm_up(engine: Engine, needs: Needs) -> None:
    """The first tap may load the graph once more; no prompt should wait for that."""
    if not needs.layers:
        return
    sequence = engine.open()
    engine.forward([Chunk(sequence, (0,), Logits.NONE, AttentionTap(needs.layers, 1))])
    engine.close(sequence)
