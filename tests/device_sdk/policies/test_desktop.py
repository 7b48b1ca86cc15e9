"""What psutil says, as a situation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

psutil = pytest.importorskip("psutil", reason="the extra [policies] is not installed")

from device_sdk import Situation, Thermal  # noqa: E402
from device_sdk.policies import desktop  # noqa: E402


def test_this_machine_says_something_that_makes_sense() -> None:
    assert isinstance(desktop.desktop_situation(), Situation)


@pytest.mark.parametrize(
    ("current", "thermal"),
    [(40.0, Thermal.NOMINAL), (88.0, Thermal.FAIR), (96.0, Thermal.SERIOUS), (100.0, Thermal.CRITICAL)],
)
def test_battery_and_the_hottest_sensor(monkeypatch: pytest.MonkeyPatch, current: float, thermal: Thermal) -> None:
    sensors = {
        "cpu": [
            SimpleNamespace(current=current, high=90.0, critical=100.0),
            SimpleNamespace(current=30.0, high=None, critical=None),
        ]
    }
    battery = SimpleNamespace(percent=42, power_plugged=False)
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert desktop.desktop_situation() == Situation(battery=0.42, charging=False, thermal=thermal)


def test_a_machine_without_battery_or_limits_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    assert desktop.desktop_situation() == Situation()
