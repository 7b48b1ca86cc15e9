"""The two metrics that every token is written to: counted without a lock, and added up where they are read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class TokenMetrics(Collector):
    """`pd_generation_tokens` and `pd_inter_token_latency_seconds`. Written by one event loop, read by any thread."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: the upper ends of the latency's buckets, ascending, in seconds."""
        self._bounds = tuple(bounds)
        self._given = 0
        #: Gaps in each bucket; the last one has no upper end.
        self._gaps = [0] * (len(self._bounds) + 1)
        self._seconds = 0.0

    def give(self, tokens: int) -> None:
        """An answer's first `tokens` tokens were given."""
        self._given += tokens

    def give_more(self, tokens: int, seconds: float) -> None:
        """`tokens` were given so many seconds after those before them. Together they are one gap, of the mean."""
        self._given += tokens
        gap = seconds / tokens
        self._gaps[bisect_left(self._bounds, gap)] += 1
        self._seconds += gap

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily("pd_generation_tokens", "Output tokens given", value=self._given)
        ends = [*map(str, self._bounds), "+Inf"]
        yield HistogramMetricFamily(
            "pd_inter_token_latency_seconds",
            "Between tokens of one generation",
            buckets=list(zip(ends, accumulate(self._gaps), strict=True)),
            sum_value=self._seconds,
        )
