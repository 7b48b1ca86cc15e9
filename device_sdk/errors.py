"""Everything the SDK raises on purpose.

PdDeviceError
├── ConfigurationError     the caller's fault: a mode without what it needs, a bad setting; nothing was started
├── PromptTooLongError     the prompt and the answer asked for fit neither side that the mode allows
│   └── NoRefinementError      they would fit refined, and nobody can refine them
├── ConversationError      about a conversation; nothing was started
│   ├── ConversationBusyError  a turn is under way, or the conversation is closed
│   └── ConversationFileError  a saved conversation cannot be written or read
│       └── OtherModelError        its KV cache belongs to another model or engine
├── CloudError             the cloud's part failed; `retriable` says whether asking again can help
│   ├── ConnectError           no connection in time, or refused
│   ├── UnauthorizedError      the API key is missing or wrong
│   ├── IncompatibleError      protocol version or model do not match
│   ├── RejectedError          the service answered `rejected`: busy, rate limit, too long, draining…
│   ├── LinkLostError          the connection broke or fell silent
│   └── ServiceFailedError     the service answered `error`, or broke the protocol
├── DeviceError            the device's engine failed, or would not load
├── GenerationFailedError  no side could finish the answer; `answer` holds what there is, `causes` why
└── GenerationCancelled    `generate` was cancelled by `Generation.cancel`; `answer` holds what there is
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device_sdk.report import Answer


class PdDeviceError(Exception):
    """Base of all errors of the SDK."""


class ConfigurationError(PdDeviceError):
    """The caller's fault; nothing was started."""


class PromptTooLongError(PdDeviceError):
    """The prompt and the answer asked for fit neither side that the mode allows."""


class NoRefinementError(PromptTooLongError):
    """Longer than the device's context, and nobody can say which part of it matters."""


class ConversationError(PdDeviceError):
    """About a conversation; nothing was started."""


class ConversationBusyError(ConversationError):
    """A turn is under way, or the conversation is closed."""


class ConversationFileError(ConversationError):
    """A saved conversation cannot be written or read."""


class OtherModelError(ConversationFileError):
    """A saved KV cache belongs to another model or engine than the one that is loaded."""


class CloudError(PdDeviceError):
    """The cloud's part failed."""

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.retriable = retriable


class ConnectError(CloudError):
    """No connection in time, or refused."""


class UnauthorizedError(CloudError):
    """The API key is missing or wrong."""


class IncompatibleError(CloudError):
    """Protocol version or model do not match."""


class RejectedError(CloudError):
    """The service answered `rejected`."""

    def __init__(self, message: str, *, reason: str, retry_after: float | None = None) -> None:
        super().__init__(message, retriable=retry_after is not None)
        self.reason = reason
        #: Seconds after which asking again can help; None where it cannot.
        self.retry_after = retry_after


class LinkLostError(CloudError):
    """The connection broke or fell silent."""


class ServiceFailedError(CloudError):
    """The service answered `error`, or broke the protocol."""


class DeviceError(PdDeviceError):
    """The device's engine failed, or would not load."""


class GenerationFailedError(PdDeviceError):
    """No side could finish the answer."""

    def __init__(self, message: str, *, answer: Answer, causes: tuple[Exception, ...] = ()) -> None:
        super().__init__(message)
        self.answer = answer
        self.causes = causes


class GenerationCancelled(PdDeviceError):  # noqa: N818 - an outcome that the caller asked for
    """The generation was cancelled."""

    def __init__(self, message: str, *, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer
