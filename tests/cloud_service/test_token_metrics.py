"""The metrics that are written for every token read as Prometheus' own would."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from cloud_service.token_metrics import TokenMetrics

BOUNDS = (0.01, 0.1, 1.0)


def test_they_read_as_a_counter_and_a_histogram_of_the_library_do() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tokens = TokenMetrics(BOUNDS)
    ours.register(tokens)
    given = Counter("pd_generation_tokens", "Output tokens given", registry=theirs)
    gaps = Histogram(
        "pd_inter_token_latency_seconds", "Between tokens of one generation", registry=theirs, buckets=BOUNDS
    )
    tokens.give(1)
    given.inc(1)
    for count, seconds in ((1, 0.005), (1, 0.01), (2, 0.5), (1, 1.0), (3, 30.0)):
        tokens.give_more(count, seconds)
        given.inc(count)
        gaps.observe(seconds / count)
    assert _samples(ours) == _samples(theirs)


def _samples(registry: CollectorRegistry) -> list[str]:
    """But for when a metric was made, which ours do not say."""
    return sorted(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)
