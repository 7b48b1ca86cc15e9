"""Everything tried: what the optimizer is measured against. Slow on purpose, and independent of what `options` and
`choose` take for granted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from planner.core import Route
from planner.cost import Decision
from planner.optimizer.problem import Option, Problem, capacities, judge


def everything(problem: Problem, paces: Sequence[float]) -> Iterator[Decision]:
    """Every decision of the grids: `paces`, and the problem's routes, keep ratios, chunks and all whole grants."""
    for pace, chunk in itertools.product(paces, problem.chunks):
        if Route.DEVICE in problem.routes:
            yield Decision(Route.DEVICE, pace=pace, chunk=chunk)
        if Route.SPLIT in problem.routes:
            for ratio, grant in itertools.product(problem.keep_ratios, range(1, problem.limits.max_grant + 1)):
                yield Decision(Route.SPLIT, grant, ratio, pace, chunk)
    if Route.CLOUD in problem.routes:
        for pace in paces:
            yield Decision(Route.CLOUD, pace=pace)


def search(problem: Problem, paces: Sequence[float]) -> tuple[Option, ...] | None:
    """The best option for each bucket under the common capacity, all combinations considered; None: none is feasible.

    Options that are worse than another one in value and in every resource are left out of the combinations.
    """
    judged = [
        _undominated(
            [
                option
                for decision in everything(problem, paces)
                if not (option := judge(problem, traffic, decision)).misses
            ]
        )
        for traffic in problem.traffic
    ]
    if not all(judged):
        return None
    limits = capacities(problem)
    best: tuple[Option, ...] | None = None
    best_value = float("inf")
    for picks in itertools.product(*judged):
        shares = [traffic.share for traffic in problem.traffic]
        value = sum(share * option.value for share, option in zip(shares, picks, strict=True))
        if value >= best_value:
            continue
        used = [
            problem.rate * sum(share * option.uses[at] for share, option in zip(shares, picks, strict=True))
            for at in range(len(limits))
        ]
        if all(use <= limit * (1 + 1e-9) for use, (_, limit) in zip(used, limits, strict=True)):
            best, best_value = picks, value
    return best


def _undominated(options: list[Option]) -> list[Option]:
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: (option.value, option.uses)):
        if not any(all(a <= b for a, b in zip(other.uses, option.uses, strict=True)) for other in kept):
            kept.append(option)
    return kept
