"""The SDK: one answer from a cloud and a device."""

from device_sdk.client import HybridClient, Loader
from device_sdk.errors import (
    CloudError,
    ConfigurationError,
    ConnectError,
    DeviceError,
    GenerationCancelled,
    GenerationFailedError,
    IncompatibleError,
    LinkLostError,
    NoRefinementError,
    PdDeviceError,
    PromptTooLongError,
    RejectedError,
    ServiceFailedError,
    UnauthorizedError,
)
from device_sdk.events import Cancelled, Event, Failed, Finished, HandOver, Notice, Progress, Refined, Thought, Token
from device_sdk.pausing import PauseSwitch
from device_sdk.policies import Ask, DailyCap, Decision, Policy, Privacy, Situation, StandardPolicy, Thermal
from device_sdk.raw import RawPrompt
from device_sdk.refining import Protected
from device_sdk.report import Answer, Guard, Report, Source, SourceSpan, TextSpan, Timeline
from device_sdk.settings import Mode, Timeouts
from device_sdk.sync import SyncHybridClient
from model_runtime.constraint import Constraint, Grammar, JsonSchema, Regex
from model_runtime.errors import ConstraintError, ConstraintUnavailableError
from model_runtime.sampling import SamplingParams
from model_runtime.tools import CallArguments, CallBegun, CallEnded, Only, Tool, ToolCall, ToolChoice
from speed_controller.delayed_start import DelayedStart
from speed_controller.settings import PaceSettings
from speed_controller.split import SplitSettings

__all__ = [
    "Answer",
    "Ask",
    "CallArguments",
    "CallBegun",
    "CallEnded",
    "Cancelled",
    "CloudError",
    "ConfigurationError",
    "ConnectError",
    "Constraint",
    "ConstraintError",
    "ConstraintUnavailableError",
    "DailyCap",
    "Decision",
    "DelayedStart",
    "DeviceError",
    "Event",
    "Failed",
    "Finished",
    "GenerationCancelled",
    "GenerationFailedError",
    "Grammar",
    "Guard",
    "HandOver",
    "HybridClient",
    "IncompatibleError",
    "JsonSchema",
    "LinkLostError",
    "Loader",
    "Mode",
    "NoRefinementError",
    "Notice",
    "Only",
    "PaceSettings",
    "PauseSwitch",
    "PdDeviceError",
    "Policy",
    "Privacy",
    "Progress",
    "PromptTooLongError",
    "Protected",
    "RawPrompt",
    "Refined",
    "Regex",
    "RejectedError",
    "Report",
    "SamplingParams",
    "ServiceFailedError",
    "Situation",
    "Source",
    "SourceSpan",
    "SplitSettings",
    "StandardPolicy",
    "SyncHybridClient",
    "TextSpan",
    "Thermal",
    "Thought",
    "Timeline",
    "Timeouts",
    "Token",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "UnauthorizedError",
]
