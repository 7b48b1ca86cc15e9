"""The plan: the best option for each bucket, under the load that the plan itself makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.cost import Load
from planner.cost.load import steady
from planner.errors import InfeasiblePlanError
from planner.optimizer.advice import binding, relaxations
from planner.optimizer.choose import choose
from planner.optimizer.options import denser, options
from planner.optimizer.problem import Limits, Option, Problem, Traffic, capacities

#: Rounds of planning under the load of the plan before. It settles in two or three: a lighter cloud needs less grant.
ROUNDS = 6
#: How often grants are looked for between those that were offered, where capacity binds.
REFINEMENTS = 3
#: Shares of the capacity that are tried, until a plan keeps its promise under its own load.
CAPACITIES = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1)


@dataclass(frozen=True, slots=True)
class Plan:
    """One option for each bucket, in order, and the load that they make."""

    problem: Problem
    options: tuple[Option, ...]
    binding: tuple[str, ...]
    load: Load
    #: Resource → share of the cloud that is used.
    used: dict[str, float]

    @property
    def value(self) -> float:
        """Of one request, over all buckets."""
        pairs = zip(self.problem.traffic, self.options, strict=True)
        return sum(traffic.share * option.value for traffic, option in pairs)


def solve(problem: Problem) -> Plan:
    """Raises InfeasiblePlanError, PlannerError."""
    problem.objective.check(problem.world)
    _best(problem)  # what cannot be on an idle cloud cannot be at all
    failed: InfeasiblePlanError | None = None
    for share in CAPACITIES:
        try:
            return _settle(problem, replace(problem.limits, capacity=problem.limits.capacity * share))
        except InfeasiblePlanError as error:
            # Its own load breaks the promise: plan for less of it. What is told is what the whole capacity lacks.
            failed = failed or error
    raise failed or AssertionError("there is always a capacity to try")


def _settle(problem: Problem, limits: Limits) -> Plan:
    """The plan that is best under the load that it makes itself. Raises InfeasiblePlanError."""
    problem = replace(problem, limits=limits)
    load = problem.world.load
    for _ in range(ROUNDS):
        picks, _ = _best(problem.under(problem.world.under(load)))
        before, load = load, _load(problem, picks)
        if _alike(before, load):
            break
    problem = problem.under(problem.world.under(load))
    picks, cheapest = _best(problem)
    bound = tuple(
        "capacity" if option.value > own.value * (1 + 1e-9) else binding(problem, traffic, option)
        for traffic, option, own in zip(problem.traffic, picks, cheapest, strict=True)
    )
    return Plan(problem, tuple(picks), bound, load, _used(problem, picks))


def solve_under_load(problem: Problem) -> list[Option]:
    """The best options under the load as `problem.world` has it. Raises InfeasiblePlanError."""
    return _best(problem)[0]


def _best(problem: Problem) -> tuple[list[Option], list[Option]]:
    """The options chosen, and what each bucket would choose for itself."""
    feasible = [_feasible(problem, traffic) for traffic in problem.traffic]
    cheapest = [min(bucket, key=lambda one: one.value) for bucket in feasible]
    picks = _share_out(problem, feasible)
    for _ in range(REFINEMENTS):
        if all(one.value <= own.value * (1 + 1e-9) for one, own in zip(picks, cheapest, strict=True)):
            break  # capacity binds nowhere
        pairs = zip(problem.traffic, feasible, picks, strict=True)
        feasible = [denser(problem, *trio) for trio in pairs]
        picks = _share_out(problem, feasible)
    return picks, cheapest


def _share_out(problem: Problem, feasible: Sequence[Sequence[Option]]) -> list[Option]:
    """One option for each bucket, within the cloud's capacity."""
    limits = capacities(problem)
    items = [
        [(traffic.share * one.value, tuple(problem.rate * traffic.share * use for use in one.uses)) for one in bucket]
        for traffic, bucket in zip(problem.traffic, feasible, strict=True)
    ]
    chosen = choose(items, [limit for _, limit in limits])
    if chosen is not None:
        return [bucket[at] for bucket, at in zip(feasible, chosen, strict=True)]
    least = [
        sum(min(uses[at] for _, uses in bucket) for bucket in items) / limit if limit else float("inf")
        for at, (_, limit) in enumerate(limits)
    ]
    raise InfeasiblePlanError(
        f"the cloud cannot carry {problem.rate:g} requests/s within these limits", tuple(_capacity(problem, least))
    )


def _feasible(problem: Problem, traffic: Traffic) -> list[Option]:
    found = [one for one in options(problem, traffic) if not one.misses]
    if not found:
        raise InfeasiblePlanError(
            f"no setting keeps the limits for prompts of {traffic.longest_prompt} tokens", relaxations(problem, traffic)
        )
    return found


def _capacity(problem: Problem, least: Sequence[float]) -> list[str]:
    names = [name for name, _ in capacities(problem)]
    worst, name = max(zip(least, names, strict=True))
    cloud = problem.world.cloud
    if worst <= 1:
        return [f"relax capacity above {problem.limits.capacity:g}: engine and places fit one by one, not together"]
    advice = [
        f"relax the rate from {problem.rate:g} to {problem.rate / worst:.3g} requests/s: {name} would need {worst:.0%}",
        f"relax instances from {cloud.instances} to about {int(cloud.instances * worst) + 1}",
    ]
    if problem.limits.capacity * worst < 1:
        advice.append(f"relax capacity from {problem.limits.capacity:g} to {problem.limits.capacity * worst:.3g}")
    return advice


def _used(problem: Problem, picks: Sequence[Option]) -> dict[str, float]:
    share = problem.limits.capacity
    return {
        name: problem.rate
        * sum(traffic.share * one.uses[at] for traffic, one in zip(problem.traffic, picks, strict=True))
        / limit
        * share
        for at, (name, limit) in enumerate(capacities(problem))
    }


def _load(problem: Problem, picks: Sequence[Option]) -> Load:
    """What the plan does to the cloud. Raises InfeasiblePlanError where that is more than it can carry."""
    world, cloud = problem.world, problem.world.cloud
    pairs = list(zip(problem.traffic, picks, strict=True))
    prefill = sum(traffic.share * one.uses[0] for traffic, one in pairs if one.decision.route.value != "device")
    tokens = sum(traffic.share * one.mean.cloud_tokens for traffic, one in pairs)
    if not cloud.prefill_instances:
        prefill = sum(
            traffic.share * world.cloud_prefill(traffic.prompt)
            for traffic, one in pairs
            if one.decision.route.value != "device"
        )
    context = round(sum(traffic.share * traffic.prompt for traffic in problem.traffic))
    alone = world.cloud_pass(context, 1)
    found = steady(
        rate=problem.rate,
        prefill_seconds=prefill,
        decode_tokens=tokens,
        prefillers=cloud.prefill_instances or cloud.instances,
        decoders=cloud.instances - cloud.prefill_instances,
        sequences=cloud.max_sequences,
        shared=not cloud.prefill_instances,
        token_seconds=alone,
        more_seconds=world.cloud_pass(context, 2) - alone,
    )
    if found is None:
        raise InfeasiblePlanError(
            f"at {problem.rate:g} requests/s the cloud's queues would grow without end",
            (f"relax instances from {cloud.instances}, or sequences from {cloud.max_sequences}, upwards",),
        )
    return found


def _alike(one: Load, other: Load) -> bool:
    return all(
        abs(getattr(one, name) - getattr(other, name)) <= 1e-3 * max(1.0, abs(getattr(one, name)))
        for name in ("prefill", "batch", "places", "hold")
    )
