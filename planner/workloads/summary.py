"""What a workload is like, in one pass and bounded memory."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from planner.core import Skipped, Workload

#: Prefix hashes remembered to tell a repeated one; beyond it, the share of shared prefix is a lower bound.
MAX_HASHES = 1_000_000


@dataclass(slots=True)
class Tally:
    """Exact quantiles of whole numbers: one counter for each value that occurs."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, value: int) -> None:
        self.counts[value] += 1

    @property
    def total(self) -> int:
        return self.counts.total()

    def mean(self) -> float:
        return sum(value * count for value, count in self.counts.items()) / self.total

    def quantiles(self, *shares: float) -> list[int]:
        """The least value that at least so large a share does not exceed, for rising `shares`."""
        found: list[int] = []
        wanted, seen, total = list(shares), 0, self.total
        for value in sorted(self.counts):
            seen += self.counts[value]
            while wanted and seen >= wanted[0] * total:
                found.append(value)
                wanted.pop(0)
        return found

    def as_json(self) -> dict[str, float]:
        names = ("p50", "p90", "p95", "p99", "max")
        return {"mean": self.mean(), **dict(zip(names, self.quantiles(0.5, 0.9, 0.95, 0.99, 1.0), strict=True))}


@dataclass(frozen=True, slots=True)
class Summary:
    """Lengths in tokens, times in seconds."""

    source: str
    requests: int
    skipped: Skipped
    duration: float
    prompt: Tally
    output: Tally
    #: Coefficient of variation of the time between arrivals: 1 for Poisson, more in bursts. NaN below 3 requests.
    burstiness: float
    #: Share of all prefix blocks that an earlier request had, too.
    shared_prefix: float

    @property
    def rate(self) -> float:
        """Requests per second; 0 where all come at once."""
        return (self.requests - 1) / self.duration if self.duration else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "requests": self.requests,
            "skipped_rows": self.skipped.count,
            "skipped_examples": self.skipped.examples,
            "duration_s": self.duration,
            "requests_per_s": self.rate,
            "arrival_cv": None if math.isnan(self.burstiness) else self.burstiness,
            "shared_prefix_blocks": self.shared_prefix,
            "prompt_tokens": self.prompt.as_json() if self.requests else {},
            "output_tokens": self.output.as_json() if self.requests else {},
        }


def summarize(workload: Workload) -> Summary:
    """One pass over `workload`."""
    skipped, prompt, output = Skipped(), Tally(), Tally()
    seen: set[int] = set()
    blocks = shared = count = 0
    last, mean, squares = 0.0, 0.0, 0.0  # Welford's algorithm on the times between arrivals
    for request in workload.stream(skipped):
        prompt.add(request.prompt_tokens)
        output.add(request.output_tokens)
        if count:
            gap = request.arrival - last
            step = gap - mean
            mean += step / count
            squares += step * (gap - mean)
        last = request.arrival
        count += 1
        for block in request.prefix_hashes:
            blocks += 1
            shared += block in seen
            if len(seen) < MAX_HASHES:
                seen.add(block)
    burstiness = math.sqrt(squares / (count - 2)) / mean if count > 2 and mean > 0 else math.nan
    return Summary(
        workload.source, count, skipped, last, prompt, output, burstiness, shared / blocks if blocks else 0.0
    )
