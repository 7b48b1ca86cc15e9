"""How an answer should be paced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from speed_controller.errors import SettingError


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """Times in seconds per token. Raises SettingError (a ValueError) naming the field that is out of range."""

    #: `smooth`: as evenly as the forecasts allow; `fixed`: at `pace`, whatever comes; `off`: each token on arrival.
    mode: Literal["smooth", "fixed", "off"] = "smooth"
    #: The preferred pace.
    pace: float = 0.050
    #: The fastest even pace that is shown.
    pace_min: float = 0.010
    #: The slowest even pace before more grant is asked for. Slower only where nobody can give more.
    pace_max: float = 0.080
    #: The largest relative change of the pace from one token to the next.
    max_change: float = 0.10
    #: Once the whole answer is in hand: go on at the preferred pace, or show the rest at once.
    finish: Literal["pace", "flush"] = "pace"

    def __post_init__(self) -> None:
        if self.mode not in ("smooth", "fixed", "off"):
            raise SettingError("mode", self.mode, "'smooth', 'fixed' or 'off'")
        if self.finish not in ("pace", "flush"):
            raise SettingError("finish", self.finish, "'pace' or 'flush'")
        for name in ("pace_min", "pace", "pace_max"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SettingError(name, value, "a finite time above 0 s per token")
        if self.pace_min > self.pace:
            raise SettingError("pace_min", self.pace_min, f"at most pace, {self.pace} s per token")
        if self.pace_max < self.pace:
            raise SettingError("pace_max", self.pace_max, f"at least pace, {self.pace} s per token")
        if not (0 < self.max_change <= 1):
            raise SettingError("max_change", self.max_change, "a share above 0 and at most 1")
