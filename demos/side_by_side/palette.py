"""The two colours of the demo, on the terminal and in the picture: blue and orange, apart for every kind of sight."""

from __future__ import annotations

from device_sdk.report import Source
from device_sdk.settings import Mode

CLOUD = "#2f7ed8"
CLOUD_DARK = "#174a86"
DEVICE = "#e0771b"
DEVICE_DARK = "#8a4a12"
INK = "#24292f"
FAINT = "#8b949e"

COLOURS = {Source.CLOUD: CLOUD, Source.DEVICE: DEVICE}
TITLES = {Mode.ONLY_ON_DEVICE: "on device", Mode.ONLY_IN_CLOUD: "in cloud", Mode.SPLIT: "split"}


def seconds(milliseconds: float | None) -> str:
    """A time that a person reads at a glance: `230 ms` or `2.31 s`; a dash where there is none."""
    if milliseconds is None:
        return "–"
    return f"{milliseconds:.0f} ms" if milliseconds < 995 else f"{milliseconds / 1000:.2f} s"
