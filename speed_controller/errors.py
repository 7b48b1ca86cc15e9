"""Everything speed_controller raises on purpose.

SpeedControllerError
├── SettingError            (a ValueError) a setting or an argument out of range; `.field` names it
├── InfeasibleSplitError    (a ValueError) no grant can give a hand-over without a stall at this pace
├── SplitFileError          (a ValueError) a split configuration's text cannot be used; the message names the key
└── TimeWentBackError       an event older than one already seen: the driver's clock is not monotonic
"""

from __future__ import annotations


class SpeedControllerError(Exception):
    """Base of all errors of speed_controller."""


class SettingError(SpeedControllerError, ValueError):
    """A setting or an argument is out of range; `field` names it."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field} is {value!r}; expected {expected}")
        self.field = field


class InfeasibleSplitError(SpeedControllerError, ValueError):
    """No grant, however large, gives a hand-over without a stall at this pace."""


class SplitFileError(SpeedControllerError, ValueError):
    """The text of a split configuration cannot be used; the message names the key."""


class TimeWentBackError(SpeedControllerError):
    """An event is older than one already seen: use one monotonic clock for all calls."""

    def __init__(self, now: float, latest: float) -> None:
        super().__init__(
            f"time went back: now is {now!r} s but {latest!r} s was seen before; use one monotonic clock for all calls"
        )
