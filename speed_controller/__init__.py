"""What paces an answer: release schedule, catch-up estimates, split settings. No I/O, no clock, no threads."""

from speed_controller.controller import SpeedController
from speed_controller.errors import (
    InfeasibleSplitError,
    SettingError,
    SpeedControllerError,
    SplitFileError,
    TimeWentBackError,
)
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.plan_file import read_split_config
from speed_controller.settings import PaceSettings
from speed_controller.split import SplitSettings, grant_needed, refined_length
from speed_controller.split_config import Bucket, Route, Slo, SplitConfig

__all__ = [
    "Bucket",
    "CloudForecast",
    "DeviceForecast",
    "InfeasibleSplitError",
    "PaceSettings",
    "Route",
    "SettingError",
    "Slo",
    "SpeedController",
    "SpeedControllerError",
    "SplitConfig",
    "SplitFileError",
    "SplitSettings",
    "TimeWentBackError",
    "grant_needed",
    "read_split_config",
    "refined_length",
]
