"""Which limit decides, and which one to relax where none can be kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from planner.core import Slo
from planner.optimizer.options import near_misses, options
from planner.optimizer.problem import Limits, Option, Problem, Traffic

#: How far limits are relaxed to see which one decides: a little, or as far as it takes for one token of grant to show.
_STEPS = (0.1, 0.3, 1.0)


def binding(problem: Problem, traffic: Traffic, chosen: Option) -> str:
    """The limit whose relaxing saves most, by the least of some steps by which any saves; empty where none does."""
    if chosen.value <= 0:
        return ""
    for step in _STEPS:
        best, found = chosen.value * (1 - 1e-6), ""
        for name, limits in _relaxed(problem.limits, step):
            tried = options(replace(problem, limits=limits), traffic, between=0)
            value = min((one.value for one in tried if not one.misses), default=math.inf)
            if value < best:
                best, found = value, name
        if found:
            return found
    return ""


def _relaxed(limits: Limits, step: float) -> Iterable[tuple[str, Limits]]:
    slo = limits.slo
    if slo.ttft_p95 is not None:
        yield "ttft_p95", replace(limits, slo=replace(slo, ttft_p95=slo.ttft_p95 * (1 + step)))
    if slo.max_gap_p99 is not None:
        yield "max_gap_p99", replace(limits, slo=replace(slo, max_gap_p99=slo.max_gap_p99 * (1 + step)))
    if slo.quality is not None:
        yield "quality", replace(limits, slo=replace(slo, quality=slo.quality / (1 + step)))
    yield "max_grant", replace(limits, max_grant=math.ceil(limits.max_grant * (1 + step)))
    yield "max_pace", replace(limits, max_pace=min(10.0, limits.max_pace * (1 + step)))


def relaxations(problem: Problem, traffic: Traffic) -> tuple[str, ...]:
    """For a bucket without a feasible option: a sentence for each limit that would do if it alone were relaxed; where
    none does alone, one sentence for those that do together."""
    tried = [option for option in near_misses(problem, traffic) if option.misses]
    alone: dict[str, float] = {}
    for option in tried:
        if len(option.misses) == 1:
            ((name, factor),) = option.misses.items()
            if math.isfinite(factor):
                alone[name] = min(factor, alone.get(name, math.inf))
    if alone:
        return tuple(f"relax {_to(problem.limits, name, factor)}" for name, factor in sorted(alone.items()))
    finite = [option for option in tried if all(map(math.isfinite, option.misses.values()))]
    if not finite:
        return ("nothing that was tried comes near: measure the quality of more keep ratios, or allow another route",)
    nearest = min(finite, key=lambda option: max(option.misses.values()))
    parts = [_to(problem.limits, name, factor) for name, factor in sorted(nearest.misses.items())]
    return (f"relax together {' and '.join(parts)}",)


def _to(limits: Limits, name: str, factor: float) -> str:
    slo: Slo = limits.slo
    percent = f"{(factor - 1) * 100:.0f}%"
    match name:
        case "ttft_p95":
            was = slo.ttft_p95 or 0
            return f"ttft_p95 from {was * 1000:.0f} ms to {_up(was * factor)} ms (+{percent})"
        case "max_gap_p99":
            was = slo.max_gap_p99 or 0
            return f"max_gap_p99 from {was * 1000:.0f} ms to {_up(was * factor)} ms (+{percent})"
        case "max_grant":
            return f"max_grant from {limits.max_grant} to {math.ceil(limits.max_grant * factor - 1e-9)} tokens"
        case _:
            was = slo.quality or 0
            return f"quality from {was:g} to {math.floor(was / factor * 1000) / 1000:g}"


def _up(seconds: float) -> int:
    return math.ceil(seconds * 1000 - 1e-6)
