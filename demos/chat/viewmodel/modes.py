"""Which mode is possible with the sides that are there."""

from __future__ import annotations

from device_sdk import Mode


def possible(mode: Mode, *, device: bool, cloud: bool) -> tuple[Mode, str | None]:
    """`mode`, or what comes nearest, and why it is another. At least one side is there."""
    if device and cloud:
        return mode, None
    if device:
        if mode in (Mode.ONLY_ON_DEVICE, Mode.PREFER_ON_DEVICE):
            return Mode.ONLY_ON_DEVICE, None
        return Mode.ONLY_ON_DEVICE, "Answered on the device alone, as there is no cloud"
    if mode in (Mode.ONLY_IN_CLOUD, Mode.PREFER_IN_CLOUD):
        return Mode.ONLY_IN_CLOUD, None
    if mode is Mode.ONLY_ON_DEVICE:
        # Whoever chose this does not want the question to leave the machine.
        return mode, None
    return Mode.ONLY_IN_CLOUD, "Answered in the cloud alone, as there is no model on the device"
