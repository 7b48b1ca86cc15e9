"""The cloud side: one engine, many devices and OpenAI clients."""

from cloud_service.app import create_app
from cloud_service.settings import Settings

__all__ = ["Settings", "create_app"]
