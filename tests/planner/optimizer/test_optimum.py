"""The optimizer beside a search that tries everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.planning_instances import PACES, problem
from planner.errors import InfeasiblePlanError
from planner.optimizer.choose import Item, choose
from planner.optimizer.exhaustive import search
from planner.optimizer.problem import Option, Problem, capacities
from planner.optimizer.solve import solve, solve_under_load

GROUP = 20


def value(instance: Problem, options: Sequence[Option]) -> float:
    return sum(traffic.share * option.value for traffic, option in zip(instance.traffic, options, strict=True))


@pytest.mark.parametrize("group", range(10))
def test_within_a_percent_of_the_best_of_everything(group: int) -> None:
    """200 random instances in all; infeasible ones must be found infeasible."""
    feasible = 0
    for seed in range(group * GROUP, (group + 1) * GROUP):
        instance = problem(seed)
        best = search(instance, (*PACES, instance.slowest_pace))
        try:
            found = solve_under_load(instance)
        except InfeasiblePlanError:
            assert best is None, f"seed {seed}: {best}"
            continue
        assert best is not None, f"seed {seed}: the optimizer chose what breaks a limit: {found}"
        feasible += 1
        assert value(instance, found) <= value(instance, best) * 1.01 + 1e-12, f"seed {seed}"
        assert not any(option.misses for option in found)
        for at, (name, limit) in enumerate(capacities(instance)):
            used = sum(t.share * option.uses[at] for t, option in zip(instance.traffic, found, strict=True))
            assert instance.rate * used <= limit * (1 + 1e-6), f"seed {seed}: {name}"
    assert feasible >= GROUP // 3  # an instance that cannot be solved proves little


@given(
    buckets=st.lists(
        st.lists(st.tuples(st.floats(0, 10), st.tuples(st.floats(0, 5), st.floats(0, 5))), min_size=1, max_size=5),
        min_size=1,
        max_size=4,
    ),
    capacity=st.tuples(st.floats(0.1, 12), st.floats(0.1, 12)),
)
def test_the_choice_under_capacity_is_the_best_of_all_combinations(
    buckets: list[list[Item]], capacity: tuple[float, float]
) -> None:
    def combinations(at: int = 0) -> list[tuple[int, ...]]:
        if at == len(buckets):
            return [()]
        return [(pick, *rest) for pick in range(len(buckets[at])) for rest in combinations(at + 1)]

    def total(picks: Sequence[int]) -> tuple[float, float, float]:
        items = [bucket[pick] for bucket, pick in zip(buckets, picks, strict=True)]
        return (
            sum(value for value, _ in items),
            sum(uses[0] for _, uses in items),
            sum(uses[1] for _, uses in items),
        )

    fitting = [
        totals[0]
        for totals in map(total, combinations())
        if all(use <= cap for use, cap in zip(totals[1:], capacity, strict=True))
    ]
    found = choose(buckets, capacity)
    if not fitting:
        assert found is None or any(use > cap for use, cap in zip(total(found)[1:], capacity, strict=True))
        return
    assert found is not None
    chosen, *used = total(found)
    assert chosen <= min(fitting) * 1.005 + 1e-9
    assert all(use <= cap * (1 + 1e-8) + 1e-9 for use, cap in zip(used, capacity, strict=True))


def test_a_plan_is_made_for_the_load_that_it_makes() -> None:
    instance = problem(3)
    quiet = solve(replace(instance, rate=1e-6))
    assert quiet.load.prefill == pytest.approx(0, abs=1e-4)
    assert quiet.load.batch == pytest.approx(0, abs=1e-3)
    assert all(share < 1e-3 for share in quiet.used.values())


def advice(instance: Problem) -> tuple[str, ...] | None:
    """None where it is feasible."""
    try:
        solve_under_load(instance)
    except InfeasiblePlanError as error:
        return error.advice
    return None


@pytest.mark.parametrize("seed", range(40))
def test_relaxing_what_is_advised_makes_it_feasible(seed: int) -> None:
    """An infeasible request says which limit to relax, and that is enough."""
    whole = replace(problem(seed), rate=0.0)
    for traffic in whole.traffic:
        instance = replace(whole, traffic=(traffic,))
        sentences = advice(instance)
        if sentences is None:
            continue
        assert sentences
        for sentence in sentences:
            assert advice(_relaxed(instance, sentence)) is None, sentence


def _relaxed(instance: Problem, sentence: str) -> Problem:
    """`instance` with what the sentence says: "relax A from 1 to 2 … and B from 3 to 4 …"."""
    limits = instance.limits
    for part in sentence.removeprefix("relax ").removeprefix("together ").split(" and "):
        name, _, rest = part.partition(" from ")
        amount = float(rest.partition(" to ")[2].split(maxsplit=1)[0])
        match name:
            case "ttft_p95":
                limits = replace(limits, slo=replace(limits.slo, ttft_p95=amount / 1000))
            case "max_gap_p99":
                limits = replace(limits, slo=replace(limits.slo, max_gap_p99=amount / 1000))
            case "quality":
                limits = replace(limits, slo=replace(limits.slo, quality=amount))
            case "max_grant":
                limits = replace(limits, max_grant=int(amount))
            case _:
                raise AssertionError(f"advice about an unknown limit: {sentence}")
    return replace(instance, limits=limits)
