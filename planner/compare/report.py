"""A comparison as a table, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from planner.compare.metrics import metrics_json

if TYPE_CHECKING:
    from model_runtime.profiles import HardwareProfile, LinkProfile
    from planner.compare.metrics import Spread
    from planner.compare.run import Comparison, Result

#: Of the layout of the JSON.
VERSION = 1

#: Heading → what stands in the column; of the table, and of the report's.
COLUMNS: Sequence[tuple[str, Callable[[Comparison, Result], str]]] = (
    ("TTFT mean", lambda _, r: _of(r.metrics.ttft_ms, "mean")),
    ("p50", lambda _, r: _of(r.metrics.ttft_ms, "p50")),
    ("p95", lambda _, r: _of(r.metrics.ttft_ms, "p95")),
    ("p99 ms", lambda _, r: _of(r.metrics.ttft_ms, "p99")),
    ("TPOT ms", lambda _, r: _of(r.metrics.tpot_ms, "mean")),
    ("gap p50", lambda _, r: _of(r.metrics.max_gap_ms, "p50")),
    ("p99 ms", lambda _, r: _of(r.metrics.max_gap_ms, "p99")),
    ("stall", lambda _, r: "-" if r.metrics.stall_share is None else f"{r.metrics.stall_share:.2%}"),
    ("cloud s", lambda _, r: f"{r.metrics.cloud_seconds:.3f}"),
    ("tokens", lambda _, r: f"{r.metrics.cloud_tokens:.1f}"),
    ("goodput/s", lambda _, r: _goodput(r)),
    ("× cloud", lambda c, r: _times(goodput_ratio(c, r))),
    ("bound ×", lambda c, r: _times(bound_ratio(c, r))),
    ("device s", lambda _, r: f"{r.metrics.device_seconds:.2f}"),
    ("J", lambda _, r: number(r.metrics.device_joules)),
    ("down", lambda _, r: size(r.metrics.bytes_down)),
    ("up", lambda _, r: size(r.metrics.bytes_up)),
)


def goodput_ratio(comparison: Comparison, result: Result) -> float | None:
    """Goodput ÷ in-cloud's on the same cloud."""
    return comparison.ratio(result, lambda each: None if each.goodput is None else each.goodput.rps)


def bound_ratio(comparison: Comparison, result: Result) -> float | None:
    """The most that `goodput_ratio` could be if both reached their bounds: of two bounds. None where the cloud does
    nothing."""
    return comparison.ratio(result, lambda each: each.bound.rps)


def rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heading and lines of the table."""
    lines = [[each.name, *(cell(comparison, each) for _, cell in COLUMNS)] for each in comparison.results]
    return ["policy", *(name for name, _ in COLUMNS)], lines


def as_json(comparison: Comparison) -> dict[str, Any]:
    plan = comparison.plan
    setup, cloud = plan.setup, plan.setup.cloud
    return {
        "version": VERSION,
        "policies": [policy_json(comparison, result) for result in comparison.results],
        "workload": {
            "source": comparison.workload.source,
            "requests": comparison.requests,
            "requests_per_s": comparison.rate,
            "skipped_rows": comparison.skipped.count,
            "skipped_examples": comparison.skipped.examples,
        },
        "cloud": {
            **profile_json(cloud.hardware),
            "instances": cloud.instances,
            "prefill_instances": cloud.prefill_instances,
            "max_sequences": cloud.max_sequences,
            "queue_depth": cloud.queue_depth,
            "pass_tokens": cloud.pass_tokens,
            "prefix_cache_tokens": cloud.prefix_cache_tokens,
        },
        "device": profile_json(setup.device),
        "link": profile_json(setup.link),
        "slo": {"ttft_p95_ms": _ms(plan.slo.ttft_p95), "max_gap_p99_ms": _ms(plan.slo.max_gap_p99)},
        "keep_ratio": plan.keep_ratio,
        "disco_budget": plan.disco_budget,
        "goodput_requests": plan.goodput_requests,
        "seed": setup.seed,
        "seconds": comparison.seconds,
        "cpu_seconds": comparison.cpu_seconds,
    }


def policy_json(comparison: Comparison, result: Result) -> dict[str, Any]:
    """`goodput_rps` is null where the rate does not matter to the policy, and where it was not searched for."""
    found = result.goodput
    return {
        "name": result.name,
        **metrics_json(result.metrics),
        "goodput_rps": _finite(found.rps) if found else None,
        "goodput_unlimited": bool(found and math.isinf(found.rps)),
        "goodput_ratio": goodput_ratio(comparison, result),
        "bound_rps": _finite(result.bound.rps),
        "bound_ratio": bound_ratio(comparison, result),
        "bound_resource": result.bound.resource,
        "cpu_seconds": result.cpu_seconds,
    }


def as_csv(comparison: Comparison) -> str:
    """A line for each policy; nested names with dots between."""
    flat = [_flat(policy_json(comparison, result)) for result in comparison.results]
    names = list(dict.fromkeys(name for line in flat for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def profile_json(profile: HardwareProfile | LinkProfile) -> dict[str, Any]:
    return {"name": profile.name, "source": profile.source, "measured": profile.measured is not None}


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def size(count: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def _of(spread: Spread | None, name: str) -> str:
    return "-" if spread is None else number(getattr(spread, name))


def _goodput(result: Result) -> str:
    if result.goodput is None:
        return "-"
    return "any" if math.isinf(result.goodput.rps) else f"{result.goodput.rps:.2f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, dict) else {f"{prefix}{name}": item}
    return flat
