"""The cloud side: engines, many devices and OpenAI clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloud_service.app import create_app
    from cloud_service.settings import Settings

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    # On demand: an engine process of a pool (cloud_service.pool.worker) has no use for a web framework.
    if name == "create_app":
        from cloud_service.app import create_app

        return create_app
    if name == "Settings":
        from cloud_service.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
