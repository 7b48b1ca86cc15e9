"""The client that the settings describe."""

from __future__ import annotations

from collections.abc import Callable

from device_sdk.client import HybridClient, Loader
from device_sdk.local_server.extension import moved
from device_sdk.local_server.settings import LocalSettings
from device_sdk.planned import read_split
from device_sdk.settings import Mode
from model_runtime.core import Cancellation, Engine
from model_runtime.emulated import EmulatedEngine
from model_runtime.loading import LoadProgress, load_engine
from model_runtime.profiles import load_profile
from speed_controller.split import SplitSettings


def client_for(
    settings: LocalSettings, on_load: Callable[[LoadProgress], None], device: Engine | None = None
) -> HybridClient:
    """Not open yet. `device` stands in for the model that the settings name. Raises ConfigurationError."""
    mode = Mode.ONLY_ON_DEVICE if settings.cloud is None else Mode.SPLIT
    split = SplitSettings() if settings.split is None else read_split(settings.split)
    return HybridClient(
        device=loader(settings) if device is None else device,
        cloud=settings.cloud,
        api_key=None if settings.cloud_key is None else settings.cloud_key.get_secret_value(),
        cloud_model=settings.cloud_model,
        mode=mode if settings.mode is None else Mode(settings.mode),
        split=moved(split, grant=None, pace_ms=settings.pace_ms, paced=True),
        on_load=on_load,
        # A chat comes with all its turns each time.
        warm_conversations=settings.warm_prompts,
        share_prefixes=settings.warm_prompts > 0,
    )


def loader(settings: LocalSettings) -> Loader:
    """Loads the device's model, on emulated hardware where the settings say so."""

    def load(*, cancellation: Cancellation, progress: Callable[[LoadProgress], None] | None) -> Engine:
        profile = None if settings.emulate is None else load_profile(settings.emulate)
        engine = load_engine(
            settings.device,
            engine=settings.engine,
            context_length=settings.context_length,
            max_sequences=settings.max_generations + settings.warm_prompts,
            threads=settings.threads,
            providers=settings.providers,
            gpu_layers=settings.gpu_layers,
            cancellation=cancellation,
            progress=progress,
        )
        return engine if profile is None else EmulatedEngine(engine, profile)

    return load
