"""What kept the service from answering, as OpenAI's errors."""

from __future__ import annotations

from cloud_service.desk import Turned
from cloud_service.scheduler.jobs import Failed, Refusal
from http_api.openai.errors import ApiError


def from_turned(turned: Turned | Refusal) -> ApiError:
    """Not admitted: 429 for the caller's own limits, 503 for the service's."""
    if turned.reason == "rate_limit":
        return ApiError(
            429, turned.message, kind="requests", code="rate_limit_exceeded", retry_after_ms=turned.retry_after_ms
        )
    return ApiError(503, turned.message, kind="server_error", code=turned.reason, retry_after_ms=turned.retry_after_ms)


def from_failed(failed: Failed) -> ApiError:
    if failed.code == "bad_request":
        return ApiError(400, failed.message)
    return ApiError(500, failed.message, kind="server_error", code=failed.code)
