"""Structured logs: one line for each event, with the facts that `extra` gives. Prompts and answers are never among
them; nothing in this package passes text to a logger."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from cloud_service.settings import Settings

#: The facts that a line may carry; anything else in `extra` would not be shown.
FACTS = (
    "generation",
    "connection",
    "caller",
    "client",
    "model",
    "reason",
    "code",
    "trace",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "ttft_ms",
    "queue_ms",
    "prefill_ms",
    "decode_ms",
)


def configure_logging(settings: Settings) -> None:
    """Send the process's logs to standard error, in the format and from the level that are set."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # At debug the WebSocket library logs frames, which hold prompts and answers, through uvicorn's logger; at info
    # uvicorn logs each request, which says nothing that the lines of the generations do not.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """`time level logger: message key=value …`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        facts = "".join(f" {name}={_plain(value)}" for name, value in _facts(record).items())
        return super().formatMessage(record) + facts


class JsonFormatter(logging.Formatter):
    """One JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _plain(value: object) -> str:
    """On one line and in one piece, whatever a client put in."""
    text = str(value)
    return text if re.fullmatch(r"[\w./:+-]+", text) else json.dumps(text)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts = {name: getattr(record, name) for name in FACTS if hasattr(record, name)}
    return {name: round(value, 1) if isinstance(value, float) else value for name, value in facts.items()}
