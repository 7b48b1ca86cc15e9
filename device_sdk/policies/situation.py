"""What is true of the device and of a question just now, as the app says. Pure."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, fields, replace

from device_sdk.errors import ConfigurationError


class Thermal(enum.IntEnum):
    """How hot the device is, in the steps of iOS's `ProcessInfo.ThermalState`. Of Android's, `LIGHT` and `MODERATE` are
    FAIR, `SEVERE` is SERIOUS, what is above is CRITICAL."""

    NOMINAL = 0
    FAIR = 1
    SERIOUS = 2
    CRITICAL = 3


class Privacy(enum.Enum):
    """Where a prompt may go."""

    #: Anywhere.
    PUBLIC = "public"
    #: To the cloud only where the device cannot answer.
    PRIVATE = "private"
    #: Nowhere: no socket is opened for it, whatever happens.
    SECRET = "secret"  # noqa: S105 - a class of prompts, no password


@dataclass(frozen=True, slots=True)
class Situation:
    """None: not known. Raises ConfigurationError."""

    #: 0 (empty) to 1 (full); None also where there is no battery.
    battery: float | None = None
    #: Whether it runs on mains power.
    charging: bool | None = None
    thermal: Thermal | None = None
    #: Whether traffic costs the user money.
    metered: bool | None = None
    privacy: Privacy | None = None
    #: Seconds in which the first token is wanted.
    deadline: float | None = None

    def __post_init__(self) -> None:
        if self.battery is not None and not 0 <= self.battery <= 1:
            raise ConfigurationError(f"battery is {self.battery!r}; it must be a share from 0 to 1, or None")
        if self.deadline is not None and not (math.isfinite(self.deadline) and self.deadline > 0):
            raise ConfigurationError(f"deadline is {self.deadline!r}; it must be a number of seconds above 0, or None")

    def over(self, other: Situation) -> Situation:
        """`other`, with what is known here in its place."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(other, **{name: value for name, value in known.items() if value is not None})
