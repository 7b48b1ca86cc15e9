"""What the SDK raises, as OpenAI's errors."""

from __future__ import annotations

from device_sdk.errors import ConfigurationError, DeviceError, GenerationFailedError, PdDeviceError, PromptTooLongError
from device_sdk.local_server.extension import KEY
from http_api.openai.errors import ApiError
from model_runtime.errors import BadInputError, ConstraintError, ConstraintUnavailableError
from speed_controller.errors import SettingError

#: What a request can make the SDK raise before anything is answered, and how an answer can fail.
EXPECTED = (PdDeviceError, BadInputError, SettingError)


def from_sdk(error: PdDeviceError | BadInputError | SettingError, *, prompt: str) -> ApiError:
    """`prompt`: the name of the parameter that holds it."""
    text = str(error)
    match error:
        case PromptTooLongError():
            return ApiError(400, text, param=prompt, code="context_length_exceeded")
        case ConfigurationError() | SettingError():
            return ApiError(400, text, param=KEY, code="invalid_value")
        case ConstraintUnavailableError():
            return ApiError(400, text, code="unsupported_parameter")
        case ConstraintError():
            return ApiError(400, text, code="invalid_value")
        case BadInputError():
            return ApiError(400, text, param=prompt, code="invalid_value")
        case DeviceError():
            return ApiError(503, text, kind="server_error", code="device_unusable")
        case GenerationFailedError():
            return ApiError(500, text, kind="server_error", code="generation_failed")
        case _:
            return ApiError(500, text, kind="server_error", code="sdk")
