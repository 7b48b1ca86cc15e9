"""The planner: how near the optimum it plans, how much faster than trying everything, and how it reads long traces.

1. On small random problems (`planning_instances.py`) the optimizer's plan beside the best of everything.
2. On the same problems with full grids (grants to 256), CPU time of both in one run.
3. A plan of 20 buckets for a workload of 20,000 requests: seconds, all rounds and the reading of the workload included.
4. Reading and summarising a trace of 1,000 to 1,000,000 rows: rows per second and peak memory of the reader.

Run: `python -m benchmarks.planning [--quick] [--json FILE] [--seed N]`. Definitions: docs/metrics.md, "The planner".
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from benchmarks.planning_instances import PACES, problem
from demos.side_by_side.hardware import machine
from model_runtime.profiles import load_link, load_profile
from planner.core import CloudProfile, Slo
from planner.cost import World
from planner.errors import InfeasiblePlanError
from planner.optimizer import Limits, Problem, make_buckets, solve
from planner.optimizer.exhaustive import search
from planner.optimizer.problem import Option
from planner.optimizer.solve import solve_under_load
from planner.workloads import generate, open_trace, summarize

T = TypeVar("T")

VALUE_AIM, SPEED_AIM, SOLVE_AIM = 1.01, 100.0, 2.0
#: Beside the slowest allowed pace.
FULL_PACES = (0.02, 0.03, 0.04, 0.05)


@dataclass(frozen=True, slots=True)
class Instance:
    """`value` is the plan's ÷ the optimum; None where no plan is feasible, and both say so."""

    seed: int
    agrees: bool
    value: float | None
    seconds: float
    exhaustive_seconds: float


def compare(instance: Problem, seed: int, paces: Sequence[float]) -> Instance:
    best, exhaustive_seconds = timed(lambda: search(instance, (*paces, instance.slowest_pace)))
    found, seconds = timed(lambda: attempt(instance))
    if best is None or found is None:
        return Instance(seed, (best is None) == (found is None), None, seconds, exhaustive_seconds)
    least = value(instance, best)
    ratio = value(instance, found) / least if least else 1.0
    return Instance(seed, True, ratio, seconds, exhaustive_seconds)


def attempt(instance: Problem) -> list[Option] | None:
    try:
        return solve_under_load(instance)
    except InfeasiblePlanError:
        return None


def value(instance: Problem, options: Sequence[Option]) -> float:
    return sum(traffic.share * option.value for traffic, option in zip(instance.traffic, options, strict=True))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """CPU seconds: another process's share of the machine is no part of it."""
    begun = time.process_time()
    return work(), time.process_time() - begun


def full(seed: int) -> Problem:
    """One bucket, since all pairs of options of two would be another matter."""
    instance = problem(seed, grants=(256, 256), chunks=(128, 256, 512, 1024))
    return replace(instance, traffic=instance.traffic[:1])


def twenty_buckets(requests: int) -> dict[str, float]:
    world = World(
        load_profile("phone-snapdragon-8-elite"),
        CloudProfile(load_profile("datacentre-a100-pcie"), instances=4, max_sequences=32),
        load_link("5g"),
    )
    workload = generate(f"poisson:rate=2,requests={requests},prompt=1000~0.6,output=200~0.7")
    begun, wall = time.process_time(), time.perf_counter()
    traffic, summary = make_buckets(workload, 20)
    read = time.process_time() - begun
    plan = solve(Problem(world, tuple(traffic), summary.rate, Limits(Slo(5.0, 0.1))))
    return {
        "buckets": len(plan.options),
        "cpu_seconds": time.process_time() - begun,
        "of_which_reading": read,
        "wall_seconds": time.perf_counter() - wall,
    }


def reading(rows: int, folder: Path) -> dict[str, float]:
    path = folder / f"{rows}.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("arrival,prompt_tokens,output_tokens\n")
        file.writelines(f"{row * 0.13:.2f},{row * 7919 % 4000 + 1},{row * 104729 % 800 + 1}\n" for row in range(rows))
    summary, seconds = timed(lambda: summarize(open_trace(path)))
    tracemalloc.start()
    for _ in open_trace(path):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if summary.requests != rows:
        raise RuntimeError(f"{rows} rows were written and {summary.requests} read")
    return {"rows": rows, "rows_per_s": rows / seconds, "peak_mib": peak / 2**20}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 problems instead of 200, traces to 10,000 rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every problem's figures")
    parser.add_argument("--seed", type=int, default=0, help="of the first problem (default 0)")
    options = parser.parse_args(argv)

    seeds = range(options.seed, options.seed + (20 if options.quick else 200))
    small = [compare(problem(seed), seed, PACES) for seed in seeds]
    large = [compare(full(seed), seed, FULL_PACES) for seed in seeds[: 2 if options.quick else 20]]
    plan = twenty_buckets(2_000 if options.quick else 20_000)
    with tempfile.TemporaryDirectory() as folder:
        traces = [reading(10**power, Path(folder)) for power in ((3, 4) if options.quick else (3, 4, 5, 6))]

    ratios = [one.value for one in (*small, *large) if one.value is not None]
    speeds = [one.exhaustive_seconds / one.seconds for one in large]
    disagreeing = [one.seed for one in (*small, *large) if not one.agrees]
    aims = {
        f"all {len(small) + len(large)} problems agree on what is feasible": not disagreeing,
        f"value ÷ optimum at most {VALUE_AIM}: {max(ratios):.5f} at worst": max(ratios) <= VALUE_AIM,
        f"at least {SPEED_AIM:.0f} × as fast: {min(speeds):.0f} × at least, "
        f"{statistics.median(speeds):.0f} × at the median": min(speeds) >= SPEED_AIM,
        f"20 buckets in less than {SOLVE_AIM:g} s: {plan['cpu_seconds']:.2f} s of CPU, "
        f"{plan['wall_seconds']:.2f} s on the clock": plan["cpu_seconds"] < SOLVE_AIM,
    }
    for aim, reached in aims.items():
        print(f"{'reached' if reached else 'MISSED '}  {aim}")
    for one in traces:
        print(f"a trace of {one['rows']:>9,} rows: {one['rows_per_s']:>8,.0f} rows/s, peak {one['peak_mib']:.1f} MiB")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine(), "quick": options.quick, "aims": aims, "plan": plan, "traces": traces}
        instances = {"small": [asdict(one) for one in small], "large": [asdict(one) for one in large]}
        options.json.write_text(json.dumps({**result, **instances}))
    return 0 if all(aims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
