"""How commands speak: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")
#: Seconds between two signs of life.
_EVERY = 0.5


def emit(result: Any) -> None:
    """The one JSON object that `--json` promises."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    sys.stderr.write(text + "\n")


def counted(items: Iterable[_T], what: str, total: int | None = None) -> Iterator[_T]:
    """`items`, with how many there were so far on a terminal."""
    live = sys.stderr.isatty()
    shown = begun = time.monotonic()
    number = 0
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if live and now - shown >= _EVERY:
            shown = now
            of = f" of {total:,}" if total else ""
            sys.stderr.write(f"\r{what}: {number:,}{of}, {number / (now - begun):,.0f}/s ")
            sys.stderr.flush()
    if live and shown != begun:
        sys.stderr.write(f"\r{what}: {number:,}, done{' ' * 30}\n")


def table(header: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as they need; the first one to the left, the others to the right."""
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        say("  ".join(cells).rstrip())
