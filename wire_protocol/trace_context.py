"""W3C Trace Context (https://www.w3.org/TR/trace-context/): the one header that is read and passed on. Pure."""

from __future__ import annotations

import re

_SHAPE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def usable(traceparent: str | None) -> str:
    """`traceparent` if it is one, else empty: what is malformed is ignored (§4.3), so that a new trace begins."""
    return traceparent if traceparent is not None and _SHAPE.fullmatch(traceparent) else ""


def trace_id(traceparent: str) -> str:
    """The 32 digits that all spans of a trace share; empty where there is no trace."""
    return traceparent[3:35]
