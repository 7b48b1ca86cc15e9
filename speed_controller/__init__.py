"""What paces an answer: release schedule, catch-up estimates, split settings. No I/O, no clock, no threads."""

from speed_controller.controller import SpeedController
from speed_controller.errors import InfeasibleSplitError, SettingError, SpeedControllerError, TimeWentBackError
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.settings import PaceSettings
from speed_controller.split import SplitSettings, grant_needed

__all__ = [
    "CloudForecast",
    "DeviceForecast",
    "InfeasibleSplitError",
    "PaceSettings",
    "SettingError",
    "SpeedController",
    "SpeedControllerError",
    "SplitSettings",
    "TimeWentBackError",
    "grant_needed",
]
