"""What `/metrics` shows of a pool, by engine process and role; docs/metrics.md defines each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud_service.pool.instance import Instance

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
#: Not `instance`, which is what Prometheus calls the service that it scrapes.
_LABELS = ("engine", "role")

_Read = Callable[[Instance], float]
_GAUGES: tuple[tuple[str, str, _Read], ...] = (
    ("up", "Whether the instance's engine is loaded: 0 or 1", lambda each: float(each.ready)),
    ("load_progress", "How far its load is, 0 to 1", lambda each: each.progress),
    ("requests", "Generations at the instance", lambda each: len(each.legs)),
    ("prefill_backlog_tokens", "Prompt tokens before a first token", lambda each: each.candidate(0).backlog),
    ("kv_cache_usage_perc", "Share of its KV set aside, 0 to 1", lambda each: each.occupancy.kv_share),
    ("prefix_cache_tokens", "Tokens of past generations there", lambda each: each.occupancy.kept_tokens),
)


class PoolMetrics(Collector):
    """Counters, and gauges that are read from the instances when they are scraped."""

    def __init__(self, registry: CollectorRegistry, instances: Callable[[], Iterable[Instance]]) -> None:
        self._instances = instances

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"pd_{name}", text, labels, registry=registry)

        self.crashes = counter("instance_crashes", "Engine processes that died", ("engine",))
        self.tokens = counter("instance_tokens", "Tokens through the instance's engine", (*_LABELS, "phase"))
        self.busy = counter("instance_busy_seconds", "Time in the instance's passes", _LABELS)
        self.turned_away = counter("forwarded_requests", "Offers that the instance rejected", _LABELS)
        self.moves = counter("moved_requests", "Generations that went on at another instance", ("cause",))
        self.role_changes = counter("role_changes", "Instances that were given another role", ("after",))
        self.kv_bytes = counter("kv_transfer_bytes", "KV cache moved between instances", ())
        self.kv_seconds = Histogram(
            "pd_kv_transfer_seconds",
            "From a KV cache's export to its acceptance by another instance",
            registry=registry,
            buckets=_SECONDS,
        )
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        for name, text, read in _GAUGES:
            family = GaugeMetricFamily(f"pd_instance_{name}", text, labels=_LABELS)
            for instance in self._instances():
                family.add_metric((str(instance.number), instance.role), read(instance))
            yield family


def labels(instance: Instance) -> tuple[str, str]:
    return str(instance.number), instance.role
