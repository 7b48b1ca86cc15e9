"""All policies on one workload and one cloud, on several cores."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from planner.compare.bound import Bound, bound
from planner.compare.goodput import Goodput, goodput
from planner.compare.metrics import Metrics, measure
from planner.core import Request, Skipped, Workload
from planner.errors import PlannerError
from planner.policies.alone import InCloud, OnDevice
from planner.policies.disco import calibrate
from planner.policies.kv_shipping import KvShipping, kv_bytes
from planner.policies.planned import Planned
from planner.policies.split import Split
from planner.simulator.world import Policy, Setup, simulate

if TYPE_CHECKING:
    from planner.core import Slo, SplitConfig

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: In the order of the report.
POLICIES = ("on-device", "in-cloud", "disco-d", "disco-s", "kv-shipping", "split", "split+refine")
#: Points of a TTFT distribution that the report draws.
QUANTILES = 200
#: Answers played token by token in each run of the search for goodput: 1% of them may miss the gap, so three.
_GOODPUT_PLAYED = 300


@dataclass(frozen=True, slots=True)
class Held:
    """The stream of a workload that is held in memory, so that it can go to another process."""

    requests: Sequence[Request]

    def __call__(self, _: Skipped) -> Iterator[Request]:
        return iter(self.requests)


def hold(workload: Workload) -> tuple[Workload, Sequence[Request], Skipped]:
    """Read it once. Raises PlannerError where it has fewer than two requests, which have no rate."""
    skipped = Skipped()
    requests = list(workload.stream(skipped))
    if len(requests) < 2 or requests[-1].arrival <= requests[0].arrival:
        raise PlannerError(f"the workload has {len(requests)} requests; at least two that arrive apart are needed")
    return dataclasses.replace(workload, stream=Held(requests)), requests, skipped


#: A simulated refinement fills its keep ratio. A calibrated service, which may keep twice as much, keeps 8% of a prompt
#: for lookups and 28% for reports (`python -m benchmarks.refinement`).
SIMULATED_KEEP_RATIO = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare, and how closely. `goodput_requests`: of the workload, those that the search for goodput replays;
    0 leaves it out. `played`: answers of a run that are played token by token."""

    setup: Setup
    slo: Slo
    policies: Sequence[str] = POLICIES
    keep_ratio: float = SIMULATED_KEEP_RATIO
    disco_budget: float = 0.5
    config: SplitConfig | None = None
    goodput_requests: int = 1_000
    played: int = 400
    jobs: int = 2

    def __post_init__(self) -> None:
        unknown = [name for name in self.policies if name not in POLICIES]
        if unknown or not self.policies:
            raise PlannerError(f"unknown policies {', '.join(unknown) or '(none)'}; choose among {', '.join(POLICIES)}")
        for name in ("keep_ratio", "disco_budget"):
            if not 0 < getattr(self, name) <= 1:
                raise PlannerError(f"{name} is {getattr(self, name)}; a share above 0 and at most 1 is expected")
        if "kv-shipping" in self.policies:
            kv_bytes(self.setup.device)


@dataclass(frozen=True, slots=True)
class Result:
    """Of one policy."""

    name: str
    metrics: Metrics
    bound: Bound
    #: None where it was not searched for.
    goodput: Goodput | None
    #: TTFT in ms at QUANTILES + 1 even quantiles.
    ttft_curve: Sequence[float]
    #: Of the run over the whole workload, in CPU time.
    cpu_seconds: float


@dataclass(slots=True)
class Comparison:
    plan: Plan
    workload: Workload
    requests: int
    rate: float
    skipped: Skipped
    results: list[Result] = field(default_factory=list)
    #: Wall-clock time, and CPU time of all runs together.
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def ratio(self, result: Result, of: Callable[[Result], float | None]) -> float | None:
        """`of(result)` ÷ the same of in-cloud; None where either is missing, infinite or 0."""
        base = next((of(each) for each in self.results if each.name == "in-cloud"), None)
        value = of(result)
        if not base or value is None or math.isinf(base) or math.isinf(value):
            return None
        return value / base


def compare(workload: Workload, plan: Plan, progress: Callable[[str], None] = lambda _: None) -> Comparison:
    """Deterministic by the setup's seed, whatever `plan.jobs` is. `progress` hears a line for each step done."""
    begun = time.perf_counter()
    held, requests, skipped = hold(workload)
    rate = (len(requests) - 1) / (requests[-1].arrival - requests[0].arrival)
    comparison = Comparison(plan, workload, len(requests), rate, skipped)
    part = requests[: max(2, plan.goodput_requests)]
    few = dataclasses.replace(held, stream=Held(part))
    policies = _policies(plan, held)
    with _pool(plan.jobs) as pool:
        # The longest first, so that none is left to the end alone.
        order = sorted(policies, key=lambda policy: policy.name.startswith("split"), reverse=True)
        runs = {policy.name: pool.submit(_run, plan, held, len(requests), policy) for policy in order}
        searches = {}
        for policy in order:
            run = runs[policy.name].result()
            progress(f"{policy.name}: {len(requests):,} requests in {run.cpu_seconds:.1f} s of CPU time")
            if plan.goodput_requests:
                searches[policy.name] = pool.submit(_search, plan, few, len(part), policy, run.bound.rps)
        for policy in policies:
            result = runs[policy.name].result()
            if policy.name in searches:
                found = searches[policy.name].result()
                progress(f"{policy.name}: goodput {found.rps:.3g} requests/s, {found.runs} runs")
                result = dataclasses.replace(result, goodput=found)
                comparison.cpu_seconds += found.cpu_seconds
            comparison.cpu_seconds += result.cpu_seconds
            comparison.results.append(result)
    comparison.seconds = time.perf_counter() - begun
    return comparison


class _Here(Executor):
    """Does it at once, in this process."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _pool(jobs: int) -> Executor:
    # A fresh interpreter for each: forking one that has threads is unsafe.
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) if jobs > 1 else _Here()


def _policies(plan: Plan, history: Workload) -> list[Policy]:
    """DiSCo's two need to know the server beforehand; `history` is what they learn from."""
    made: dict[str, Policy] = {"on-device": OnDevice(), "in-cloud": InCloud(), "kv-shipping": KvShipping()}
    if plan.config is None:
        made |= {"split": Split(), "split+refine": Split("split+refine", plan.keep_ratio)}
    else:
        for refine in (False, True):
            planned = Planned(plan.config, refine, plan.keep_ratio)
            made[planned.name] = planned
    if {"disco-d", "disco-s"} & set(plan.policies):
        learnt = simulate(plan.setup, history, InCloud()).outcomes
        ttft = learnt.column("ttft")
        prompts = [int(tokens) for tokens in learnt.column("prompt_tokens")]
        known: list[float] = ttft[~np.isnan(ttft)].tolist()
        made["disco-d"] = calibrate("device", prompts, known, plan.disco_budget)
        made["disco-s"] = calibrate("server", prompts, known, plan.disco_budget)
    return [made[name] for name in POLICIES if name in plan.policies]


def _run(plan: Plan, workload: Workload, requests: int, policy: Policy) -> Result:
    begun = time.process_time()
    setup = dataclasses.replace(plan.setup, played=min(1.0, plan.played / requests))
    outcomes = simulate(setup, workload, policy).outcomes
    ttft = outcomes.column("ttft")
    known = 1000 * ttft[~np.isnan(ttft)]
    curve = np.quantile(known, np.linspace(0, 1, QUANTILES + 1)).tolist() if len(known) else []
    return Result(
        policy.name,
        measure(outcomes, setup.device),
        bound(outcomes, setup.cloud),
        None,
        curve,
        time.process_time() - begun,
    )


def _search(plan: Plan, workload: Workload, requests: int, policy: Policy, limit: float) -> Goodput:
    held = list(workload)
    rate = (requests - 1) / (held[-1].arrival - held[0].arrival)
    setup = dataclasses.replace(plan.setup, played=min(1.0, _GOODPUT_PLAYED / requests))
    begun = time.process_time()
    found = goodput(setup, workload, policy, plan.slo, requests=requests, rate=rate, limit=limit)
    return dataclasses.replace(found, cpu_seconds=time.process_time() - begun)
