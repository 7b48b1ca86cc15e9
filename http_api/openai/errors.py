"""Errors in the shape that OpenAI's clients expect."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse


class ApiError(Exception):
    """Answered with `status` and a body that names the parameter at fault, where there is one."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_ms: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        #: Whole seconds, as the header wants them.
        self.headers = {} if retry_after_ms is None else {"retry-after": str(math.ceil(retry_after_ms / 1000))}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def from_validation(error: ValidationError) -> ApiError:
    """What is wrong with a body, from its first fault. The text never quotes content."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    param = ".".join(str(part) for part in fault["loc"]) or None
    if fault["type"] == "extra_forbidden":
        return ApiError(400, f"{param} is not supported here", param=param, code="unsupported_parameter")
    if fault["type"] == "json_invalid":
        return ApiError(400, "the body is not valid JSON")
    return ApiError(400, f"{param}: {fault['msg']}", param=param, code="invalid_value")
