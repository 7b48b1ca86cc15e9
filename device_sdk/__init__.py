"""The SDK: one answer from a cloud and a device."""

from device_sdk.client import HybridClient
from device_sdk.errors import (
    CloudError,
    ConfigurationError,
    ConnectError,
    DeviceError,
    GenerationCancelled,
    GenerationFailedError,
    IncompatibleError,
    LinkLostError,
    PdDeviceError,
    PromptTooLongError,
    RejectedError,
    ServiceFailedError,
    UnauthorizedError,
)
from device_sdk.events import Cancelled, Event, Failed, Finished, HandOver, Notice, Token
from device_sdk.report import Answer, Report, Source, SourceSpan, Timeline
from device_sdk.settings import Mode, Timeouts
from device_sdk.sync import SyncHybridClient
from model_runtime.sampling import SamplingParams
from speed_controller.settings import PaceSettings
from speed_controller.split import SplitSettings

__all__ = [
    "Answer",
    "Cancelled",
    "CloudError",
    "ConfigurationError",
    "ConnectError",
    "DeviceError",
    "Event",
    "Failed",
    "Finished",
    "GenerationCancelled",
    "GenerationFailedError",
    "HandOver",
    "HybridClient",
    "IncompatibleError",
    "LinkLostError",
    "Mode",
    "Notice",
    "PaceSettings",
    "PdDeviceError",
    "PromptTooLongError",
    "RejectedError",
    "Report",
    "SamplingParams",
    "ServiceFailedError",
    "Source",
    "SourceSpan",
    "SplitSettings",
    "SyncHybridClient",
    "Timeline",
    "Timeouts",
    "Token",
    "UnauthorizedError",
]
