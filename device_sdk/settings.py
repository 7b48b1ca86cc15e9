"""What a caller may choose: the mode, and one timeout for each kind of wait."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

from device_sdk.errors import ConfigurationError


class Mode(enum.Enum):
    """Who answers. The names follow Firebase AI Logic's."""

    #: The cloud begins, the device finishes: one answer. Either finishes alone when the other fails.
    SPLIT = "SPLIT"
    #: Opens no socket at all.
    ONLY_ON_DEVICE = "ONLY_ON_DEVICE"
    #: The device; the cloud only if the device's engine is missing or fails.
    PREFER_ON_DEVICE = "PREFER_ON_DEVICE"
    #: The cloud; the device only if the cloud refuses, stalls or drops.
    PREFER_IN_CLOUD = "PREFER_IN_CLOUD"
    #: Needs no engine on the device.
    ONLY_IN_CLOUD = "ONLY_IN_CLOUD"

    @property
    def uses_cloud(self) -> bool:
        return self is not Mode.ONLY_ON_DEVICE

    @property
    def uses_device(self) -> bool:
        return self is not Mode.ONLY_IN_CLOUD


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; each wait has its own."""

    #: TCP, TLS, upgrade and hello.
    connect: float = 5.0
    #: From asking the cloud to its first token.
    first_token: float = 30.0
    #: Between two tokens of the cloud.
    idle: float = 5.0
    #: One pass of the device's engine.
    device_pass: float = 60.0
    #: Loading the device's model.
    load: float = 300.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigurationError(f"Timeouts.{field.name} is {value!r}; it must be a number of seconds above 0")
