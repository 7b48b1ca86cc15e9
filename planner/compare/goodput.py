"""Goodput: the highest arrival rate at which the promise to users is kept, by bisection on the rate.

The requests are the same at every rate, only closer together. A rate is good where at most 5% of the answers miss the
SLO's TTFT (it promises the 95th percentile), 1% its largest gap (the 99th), and 1% do not come at all. The search goes
up to the bound (`planner.compare.bound`), which nothing exceeds; a run ends as soon as it cannot be good any more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.simulator.world import simulate
from planner.workloads import rescale

if TYPE_CHECKING:
    from planner.core import Slo, Workload
    from planner.simulator.outcome import Outcome
    from planner.simulator.world import Policy, Setup

#: Shares of answers that may miss the SLO's TTFT, its largest gap, or not come at all.
TTFT_MISSES, GAP_MISSES, FAILURES = 0.05, 0.01, 0.01
#: The bisection ends where good and bad are this close, as a share of the bound.
PRECISION = 0.02


@dataclass(slots=True)
class Tally:
    """Counts what misses `slo`. Of `total` answers."""

    slo: Slo
    total: int
    late: int = 0
    gapped: int = 0
    failed: int = 0
    ended: int = 0
    played: int = 0

    def note(self, _: int, outcome: Outcome) -> None:
        self.ended += 1
        self.failed += outcome.failed > 0
        if self.slo.ttft_p95 is not None and not outcome.ttft <= self.slo.ttft_p95:  # NaN, if it never came, is late
            self.late += 1
        if not math.isnan(outcome.max_gap):
            self.played += 1
            self.gapped += self.slo.max_gap_p99 is not None and outcome.max_gap > self.slo.max_gap_p99

    @property
    def hopeless(self) -> bool:
        """Too many have missed, even if all that are still to come do not. Of fewer than a hundred answers that are
        played, one may miss the gap."""
        if self.late > TTFT_MISSES * self.total or self.failed > FAILURES * self.total:
            return True
        return self.gapped > max(GAP_MISSES * (self.played + self.total - self.ended), 1.0)

    @property
    def good(self) -> bool:
        """Of a run that was not ended early."""
        return not self.hopeless


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests per second. `rps`: the highest rate found good, 0 where none was, infinite where rates do not matter;
    `bad_rps`: the lowest found bad, or the bound."""

    rps: float
    bad_rps: float
    runs: int
    #: CPU time of the search, where somebody took it.
    cpu_seconds: float = 0.0


def goodput(
    setup: Setup, workload: Workload, policy: Policy, slo: Slo, *, requests: int, rate: float, limit: float
) -> Goodput:
    """`workload` has so many requests at so many per second; `limit` is the bound. Deterministic by seed."""

    def good(rps: float) -> bool:
        tally = Tally(slo, requests)
        simulate(setup, rescale(workload, rps / rate), policy, watch=tally.note, stop=lambda: tally.hopeless)
        return tally.good

    if math.isinf(limit):
        return Goodput(limit if good(rate) else 0.0, limit, 1)
    low, high, runs = 0.0, limit, 0
    while high - low > PRECISION * limit:
        middle = (low + high) / 2
        runs += 1
        if good(middle):
            low = middle
        else:
            high = middle
    return Goodput(low, high, runs)
