"""What a desktop or a laptop can tell of itself, through psutil (extra `[policies]`)."""

from __future__ import annotations

import psutil

from device_sdk.policies.situation import Situation, Thermal

#: Degrees below what a sensor calls critical.
SERIOUS_BELOW, FAIR_BELOW = 5.0, 15.0


def desktop_situation() -> Situation:
    """Battery, mains power and heat, as far as the system says; no operating system tells psutil whether a network is
    metered. Takes milliseconds. Pass it as `HybridClient(situation=desktop_situation)`."""
    battery = psutil.sensors_battery()
    if battery is None:
        return Situation(thermal=_thermal())
    return Situation(
        battery=min(max(battery.percent / 100, 0.0), 1.0), charging=battery.power_plugged, thermal=_thermal()
    )


def _thermal() -> Thermal | None:
    """By the sensor that is closest to its limit; None where none has a limit (or the system shows none)."""
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    sensors = [sensor for group in psutil.sensors_temperatures().values() for sensor in group]
    margins = [limit - one.current for one in sensors if (limit := one.critical or one.high) and one.current]
    if not margins:
        return None
    least = min(margins)
    if least <= 0:
        return Thermal.CRITICAL
    if least <= SERIOUS_BELOW:
        return Thermal.SERIOUS
    return Thermal.FAIR if least <= FAIR_BELOW else Thermal.NOMINAL
