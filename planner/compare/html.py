"""A comparison as one HTML file that a person can read: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from planner.compare.charts import Bar, Series, bars, distribution
from planner.compare.report import bound_ratio, goodput_ratio, number, rows

if TYPE_CHECKING:
    from planner.compare.run import Comparison, Result

_TEMPLATE = Path(__file__).with_name("report.html.j2")


def as_html(comparison: Comparison) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    heading, lines = rows(comparison)
    plan = comparison.plan
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        comparison=comparison,
        plan=plan,
        cloud=plan.setup.cloud,
        profiles=[plan.setup.device, plan.setup.cloud.hardware, plan.setup.link],
        findings=findings(comparison),
        heading=heading,
        lines=lines,
        ttft=distribution([Series(each.name, each.ttft_curve) for each in comparison.results], "TTFT in ms"),
        goodput=bars([_goodput_bar(each) for each in comparison.results], "requests/s at the SLO; the line: the bound"),
        cloud_seconds=bars(
            [Bar(each.name, each.metrics.cloud_seconds) for each in comparison.results],
            "cloud engine seconds per request",
        ),
        gaps=bars(
            [
                Bar(each.name, each.metrics.max_gap_ms.p99)
                for each in comparison.results
                if each.name != "kv-shipping" and each.metrics.max_gap_ms is not None
            ],
            "largest gap, 99th percentile, in ms (without kv-shipping, whose gaps are seconds)",
        ),
    )


def findings(comparison: Comparison) -> list[str]:
    """What the split comes to, in sentences."""
    by_name = {each.name: each for each in comparison.results}
    said = []
    for name in ("split", "split+refine"):
        ours = by_name.get(name)
        if ours is None or ours.metrics.ttft_ms is None:
            continue
        device = by_name.get("on-device")
        if device is not None and device.metrics.ttft_ms is not None:
            mean = 1 - ours.metrics.ttft_ms.mean / device.metrics.ttft_ms.mean
            tail = 1 - ours.metrics.ttft_ms.p99 / device.metrics.ttft_ms.p99
            values = f"{number(ours.metrics.ttft_ms.mean)} ms on average, {number(ours.metrics.ttft_ms.p99)} ms at p99"
            said.append(f"{name}: TTFT {values}, {mean:.0%} and {tail:.0%} less than on the device.")
        if ours.metrics.max_gap_ms is not None:
            said.append(
                f"{name}: largest gap {number(ours.metrics.max_gap_ms.p99)} ms at the 99th percentile, over "
                f"{ours.metrics.played:,} answers played token by token."
            )
        said += _against(comparison, ours)
    return said


def _against(comparison: Comparison, ours: Result) -> list[str]:
    ratio, bound = goodput_ratio(comparison, ours), bound_ratio(comparison, ours)
    if ratio is None or bound is None:
        return []
    said = f"{ours.name}: {ratio:.2f} × the goodput of in-cloud on the same accelerators; the bounds are {bound:.2f} ×"
    return [f"{said} apart ({ours.bound.resource} runs out first)."]


def _goodput_bar(result: Result) -> Bar:
    found = result.goodput
    if found is None:
        return Bar(result.name, None, note="not searched for")
    if math.isinf(found.rps):
        return Bar(result.name, None, note="any rate: the cloud does nothing")
    if found.rps == 0:
        return Bar(result.name, None, note="none: the SLO is missed at every rate")
    return Bar(result.name, found.rps, None if math.isinf(result.bound.rps) else result.bound.rps)
