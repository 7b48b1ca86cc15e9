"""The SDK's report as JSON: whole in a body, short in a header."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from device_sdk.report import Report

#: Long, and for plots: the SDK itself has them.
_LEFT_OUT = ("timeline", "prompt_read")
#: What a header leaves out beside: lists, and text of any length.
_NOT_IN_HEADER = ("spans", "guard", "notices", "route_reason")


def report_body(report: Report) -> dict[str, Any]:
    """Field by field as in `device_sdk.Report`, which defines them; times in ms."""
    fields: dict[str, Any] = msgspec.to_builtins(report)
    return {name: _short(value) for name, value in fields.items() if name not in _LEFT_OUT}


def report_header(report: Report) -> str:
    """The figures alone, as JSON in ASCII."""
    body = {name: value for name, value in report_body(report).items() if name not in _NOT_IN_HEADER}
    return json.dumps(body, separators=(",", ":"))


def _short(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
