"""What `/metrics` shows. Names follow vLLM's where it has one for the same thing; docs/metrics.md defines each.

Every app has a registry of its own, so that several live in one process. Nothing here ever holds text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cloud_service.token_metrics import TokenMetrics

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SHARES = tuple(step / 10 for step in range(1, 11))
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What is in the scheduler now."""

    running: int = 0
    #: Used-up grants that are held open for an extension; part of neither `running` nor `waiting`.
    lingering: int = 0
    waiting: int = 0
    #: Tokens in their KV caches, and the share of all KV that is set aside for what they may become.
    kv_tokens: int = 0
    kv_share: float = 0.0
    #: Of past generations, for prompts that begin alike. They make room for whoever needs it.
    kept_sequences: int = 0
    kept_tokens: int = 0


class Metrics:
    """All metrics of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"pd_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"pd_{name}", text, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"pd_{name}", text, registry=self.registry, buckets=buckets)

        self.running = gauge("num_requests_running", "Generations that share the engine's passes")
        self.waiting = gauge("num_requests_waiting", "Generations accepted and waiting for a place")
        self.lingering = gauge("num_requests_lingering", "Used-up grants held open for an extension")
        self.kv_tokens = gauge("kv_cache_tokens", "Tokens in KV caches")
        self.kv_share = gauge("kv_cache_usage_perc", "Share of all KV set aside for generations, 0 to 1")
        self.kept_tokens = gauge("prefix_cache_tokens", "Tokens of past generations in KV caches")
        self.connections = gauge("websocket_connections_active", "Open device connections, after hello")

        self.ttft = histogram("time_to_first_token_seconds", "From a request's arrival to its first token")
        self.tokens = TokenMetrics(_TOKEN_SECONDS)
        self.registry.register(self.tokens)
        self.queue = histogram("request_queue_time_seconds", "From a request's arrival to its first pass")
        self.prefill = histogram("request_prefill_time_seconds", "Engine time of a generation's prefill")
        self.decode = histogram("request_decode_time_seconds", "Engine time of a generation's decoding")

        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens of finished generations")
        self.cached_tokens = counter("prefix_cache_hits", "Of these, tokens that were in a KV cache already")
        self.grant_tokens = counter("grant_tokens", "Output tokens granted: asked for in accepted requests")
        self.late_tokens = counter("late_tokens", "Tokens given after the device had none left, by its last `progress`")
        self.saved_tokens = counter("saved_tokens", "Tokens that devices made themselves, as they report in `stop`")
        self.finished = counter("request_success", "Generations that ended of themselves", ("finished_reason",))
        self.errors = counter("request_errors", "Generations that ended in an error", ("code",))
        self.rejections = counter("admission_rejections", "Generations that were not served", ("reason",))
        self.rate_limit_errors = counter("rate_limit_store_errors", "Times that a rate went uncounted, its store away")
        self.engine_busy = counter("engine_busy_seconds", "Time spent in the engine's passes")
        self.engine_tokens = counter("engine_tokens", "Tokens that went through the engine", ("phase",))

        self.refinements = counter("refinements", "Refinements given, by what their guard decided", ("scorer", "guard"))
        self.refinement_kept = histogram("refinement_kept_ratio", "Share of a prompt's tokens kept, 0 to 1", _SHARES)
        self.refinement_cost = histogram(
            "refinement_seconds", "Scoring, selecting and judging, without the engine's own pass", _TOKEN_SECONDS
        )

    def watch(self, occupancy: Callable[[], Occupancy]) -> None:
        """Have the gauges read `occupancy` whenever they are scraped."""
        self.running.set_function(lambda: occupancy().running)
        self.waiting.set_function(lambda: occupancy().waiting)
        self.lingering.set_function(lambda: occupancy().lingering)
        self.kv_tokens.set_function(lambda: occupancy().kv_tokens)
        self.kv_share.set_function(lambda: occupancy().kv_share)
        self.kept_tokens.set_function(lambda: occupancy().kept_tokens)

    def observe_refinement(self, scorer: str, guard: str, kept: float, seconds: float) -> None:
        """A refinement was given."""
        self.refinements.labels(scorer or "none", guard).inc()
        self.refinement_kept.observe(kept)
        if scorer:
            self.refinement_cost.observe(seconds)

    def observe_pass(self, seconds: float, prefill_tokens: int, decode_tokens: int) -> None:
        """Called from the engine's thread after each pass."""
        self.engine_busy.inc(seconds)
        if prefill_tokens:
            self.engine_tokens.labels("prefill").inc(prefill_tokens)
        if decode_tokens:
            self.engine_tokens.labels("decode").inc(decode_tokens)
