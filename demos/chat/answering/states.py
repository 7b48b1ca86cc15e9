"""How far each side is, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["device", "cloud"]
#: `stopped`: the user cancelled; what was downloaded is kept.
Phase = Literal["off", "downloading", "loading", "ready", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class SideState:
    """One side at one moment."""

    side: Side
    phase: Phase
    #: Of a download or a load, from 0 to 1; None where nobody knows.
    fraction: float | None = None
    #: What it is once ready, or why it is not.
    text: str = ""
    #: Whether its speed is somebody else's.
    emulated: bool = False

    @property
    def under_way(self) -> bool:
        return self.phase in ("downloading", "loading")
