"""From a trace's rows to requests in order of arrival: what is no request is counted, what is a little late is put
in its place, and nothing is held but a window of rows."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from planner.core import Request, Skipped

#: Rows within which a trace may be out of order.
WINDOW = 4096


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One request as the trace has it; `time` in seconds on the trace's own clock."""

    time: float
    number: int
    prompt_tokens: int
    output_tokens: int
    prefix_hashes: tuple[int, ...] = ()


class BadRowError(ValueError):
    """This row is no request; the message says why."""


def checked(row: Row) -> Row:
    """Raises BadRowError for what no request can be."""
    if not math.isfinite(row.time):
        raise BadRowError(f"the arrival is {row.time}, not a finite time")
    if row.prompt_tokens < 1:
        raise BadRowError(f"the prompt has {row.prompt_tokens} tokens; at least 1 is expected")
    if row.output_tokens < 1:
        raise BadRowError(f"the answer has {row.output_tokens} tokens (a failed request?); at least 1 is expected")
    return row


def in_order(rows: Iterable[Row], skipped: Skipped) -> Iterator[Request]:
    """Requests by arrival, the first one at 0. A row that is later than a whole window of others is skipped."""
    heap: list[Row] = []
    begun: float | None = None
    latest = -math.inf
    for row in rows:
        if row.time < latest:
            skipped.note(row.number, f"it arrives {latest - row.time:g} s before rows that are far ahead of it")
            continue
        heapq.heappush(heap, row)
        if len(heap) > WINDOW:
            earliest = heapq.heappop(heap)
            begun = earliest.time if begun is None else begun
            latest = earliest.time
            yield _request(earliest, begun)
    while heap:
        earliest = heapq.heappop(heap)
        begun = earliest.time if begun is None else begun
        yield _request(earliest, begun)


def _request(row: Row, begun: float) -> Request:
    return Request(row.time - begun, row.prompt_tokens, row.output_tokens, row.prefix_hashes)
