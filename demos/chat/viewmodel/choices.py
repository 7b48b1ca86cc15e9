"""Emulated hardware and networks to choose from, each called what it is."""

from __future__ import annotations

from functools import cache

from device_sdk.testing import LINKS
from model_runtime.profiles import load_profile, profile_names


def read() -> None:
    """Reads files, once: not for the screen's thread, which then finds them read."""
    _profiles()


def hardware(own: str) -> dict[str, str]:
    """By the value in Settings; the empty one is this machine."""
    return {"": own} | _profiles()


def links() -> dict[str, str]:
    return {name: str(link) if link.emulated else "Nothing added" for name, link in LINKS.items()}


@cache
def _profiles() -> dict[str, str]:
    return {name: f"Emulated: {load_profile(name).title}" for name in profile_names()}
