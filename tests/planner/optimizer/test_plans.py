"""What a plan says: buckets of a workload, the limit that decides, the load, and what cannot be."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from model_runtime.profiles import load_link, load_profile
from planner.core import CloudProfile, Route, Slo
from planner.cost import World
from planner.errors import InfeasiblePlanError, PlannerError, WorkloadError
from planner.optimizer import Limits, Objective, Problem, make_buckets, solve
from planner.workloads import first, generate, window


def planned(*, slo: Slo | None = None, rate: float = 2.0, instances: int = 4, **more: object) -> Problem:
    world = World(
        load_profile("phone-snapdragon-8-elite"),
        CloudProfile(load_profile("datacentre-a100-pcie"), instances=instances, max_sequences=32),
        load_link("5g"),
    )
    traffic, _ = make_buckets(generate("poisson:requests=2000,prompt=1200~0.4,output=200~0.6"), 4)
    limits = Limits(slo or Slo(ttft_p95=1.0, max_gap_p99=0.1))
    return replace(Problem(world, tuple(traffic), rate, limits), **more)  # type: ignore[arg-type]


def test_buckets_cover_the_workload() -> None:
    workload = generate("poisson:requests=3000,prompt=1000~0.9,output=10-50")
    traffic, summary = make_buckets(workload, 5)
    assert len(traffic) == 5
    assert sum(one.share for one in traffic) == pytest.approx(1)
    assert [one.up_to for one in traffic][-1] is None
    assert sum(one.share * one.prompt for one in traffic) == pytest.approx(summary.prompt.mean(), rel=0.01)
    for one in traffic:
        assert one.longest_prompt <= (one.up_to or 10**9)
        assert sum(one.outputs) / len(one.outputs) == pytest.approx(30, rel=0.1)


def test_buckets_may_be_given_and_an_empty_last_one_is_kept() -> None:
    traffic, _ = make_buckets(generate("poisson:requests=100,prompt=100-200"), ends=[150, 1000])
    assert [(one.up_to, one.share > 0) for one in traffic] == [(150, True), (1000, True), (None, False)]
    with pytest.raises(WorkloadError, match="no requests"):
        make_buckets(window(first(generate("poisson"), 3), 1e9))


def test_short_prompts_stay_on_the_device_and_long_ones_are_split() -> None:
    plan = solve(planned())
    routes = [option.decision.route for option in plan.options]
    assert routes[0] is Route.DEVICE or routes[0] is Route.SPLIT
    assert routes[-1] is Route.SPLIT
    grants = [option.decision.grant for option in plan.options if option.decision.route is Route.SPLIT]
    assert grants == sorted(grants)
    assert plan.binding[-1] in ("max_gap_p99", "max_pace")


def test_a_tighter_promise_costs_more() -> None:
    loose, tight = (solve(planned(slo=Slo(1.0, gap))).value for gap in (0.12, 0.06))
    assert tight > loose


def test_an_error_that_was_measured_widens_the_forecast() -> None:
    problem = planned()
    sure = solve(problem)
    doubtful = solve(problem.under(replace(problem.world, error={"max_gap_ms": 0.15, "ttft_ms": 0.1})))
    assert doubtful.value > sure.value
    assert all(option.worst.max_gap_p99 <= 0.1 + 1e-9 for option in doubtful.options)


def test_what_cannot_be_promised_says_what_to_relax() -> None:
    with pytest.raises(InfeasiblePlanError, match="relax ttft_p95 from 20 ms to") as error:
        solve(planned(slo=Slo(ttft_p95=0.02, max_gap_p99=0.1)))
    assert "no setting keeps the limits for prompts of" in str(error.value)
    with pytest.raises(InfeasiblePlanError, match="relax max_gap_p99 from 30 ms to"):
        solve(planned(slo=Slo(ttft_p95=1.0, max_gap_p99=0.03), routes=(Route.DEVICE, Route.SPLIT)))


def test_a_cloud_that_is_too_small_says_by_how_much() -> None:
    with pytest.raises(InfeasiblePlanError, match=r"relax the rate from 500 to .*requests/s") as error:
        solve(planned(rate=500.0, instances=1, routes=(Route.CLOUD,)))
    assert "relax instances from 1 to about" in str(error.value)


def test_scarce_capacity_moves_answers_to_the_device() -> None:
    """Energy alone would leave everything to the cloud."""
    draws = {"prefill_watts": 6.0, "decode_watts": 4.0}
    problem = planned(slo=Slo(max_gap_p99=0.1), objective=Objective.named("device-energy"), rate=4.0)
    device = msgspec.structs.replace(problem.world.device, **draws)
    problem = problem.under(replace(problem.world, device=device))
    plan = solve(problem)
    assert "capacity" in plan.binding
    assert all(share <= problem.limits.capacity + 1e-6 for share in plan.used.values())
    ample = solve(replace(problem, rate=0.01))
    assert {option.decision.route for option in ample.options} == {Route.CLOUD}
    assert ample.value < plan.value


@pytest.mark.parametrize(
    ("objective", "message"),
    [("cloud-cost", "--price-per-hour"), ("device-energy", "--device-watts")],
)
def test_an_objective_without_its_figures_is_refused(objective: str, message: str) -> None:
    with pytest.raises(PlannerError, match=message):
        solve(planned(objective=Objective.named(objective)))


@pytest.mark.parametrize("name", ["speed", "weighted:", "weighted:seconds=-1", "weighted:love=1", "other:seconds=1"])
def test_an_unknown_objective_is_refused(name: str) -> None:
    with pytest.raises(PlannerError, match="no objective"):
        Objective.named(name)


def test_impossible_limits_are_refused() -> None:
    for bad in ({"capacity": 1.0}, {"max_grant": -1}, {"max_pace": 0.0}):
        with pytest.raises(PlannerError, match=next(iter(bad))):
            Limits(**bad)  # type: ignore[arg-type]
