"""`pd-plan solve`."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from planner.cli.inputs import (
    add_profiles,
    add_workload,
    input_hashes,
    provenance,
    read_config,
    read_profiles,
    read_workload,
)
from planner.cli.output import counted, emit, note, say, table
from planner.config import split_config, to_toml
from planner.core import Route, Slo, SplitConfig
from planner.cost import QualityTable, World
from planner.cost.quality import FULL_PROMPT_ONLY
from planner.errors import PlannerError
from planner.optimizer import Limits, Objective, Plan, Problem, make_buckets, solve

_DESCRIPTION = """\
For each range of prompt lengths choose who answers (device, split, cloud), how many tokens the cloud gives, how much of
the prompt refinement keeps, the pace and the device's chunk, so that the objective is least and every limit is kept.
Says which limit decides in each range. If none can be kept, says which one to relax, and by how much (exit code 3).
"""
_EPILOG = """\
example:
  pd-plan solve --workload azure_llm_2023_conv.csv --device phone-snapdragon-8-elite --cloud datacentre-a100-pcie \\
      --instances 4 --link 5g --ttft-p95-ms 800 --max-gap-p99-ms 100 --out split.toml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    add_workload(parser)
    add_profiles(parser)
    goal = parser.add_argument_group("what is wanted")
    goal.add_argument(
        "--objective", default="cloud-seconds",
        help="cloud-seconds, cloud-cost, device-energy or weighted:seconds=A,cost=B,energy=C (%(default)s)",
    )  # fmt: skip
    goal.add_argument("--ttft-p95-ms", type=float, default=1000.0, metavar="MS", help="in every bucket (%(default)s)")
    goal.add_argument("--max-gap-p99-ms", type=float, default=100.0, metavar="MS", help="99th percentile (%(default)s)")
    goal.add_argument(
        "--max-pace-ms", type=float, default=80.0, metavar="MS", help="slowest preferred pace (%(default)s)"
    )
    goal.add_argument("--max-grant", type=int, default=256, metavar="N", help="largest grant (%(default)s)")
    goal.add_argument("--capacity", type=float, default=0.8, metavar="SHARE", help="of the cloud's time (%(default)s)")
    goal.add_argument("--min-quality", type=float, metavar="SHARE", help="of the full prompt's, with --quality")
    goal.add_argument("--quality", type=Path, metavar="FILE", help="JSON: source, points [[keep ratio, quality], …]")
    goal.add_argument("--routes", default="device,split,cloud", help="what may be chosen (%(default)s)")
    how = parser.add_argument_group("how")
    how.add_argument("--buckets", type=int, default=8, metavar="N", help="ranges of prompt lengths (%(default)s)")
    how.add_argument("--ends", type=_ends, metavar="A,B,…", help="their upper ends, instead")
    how.add_argument("--error-from", type=Path, metavar="FILE", help="a validated configuration: its errors widen ours")
    how.add_argument("--out", type=Path, metavar="FILE", help="write the configuration there")
    how.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> int:
    device, cloud, link = read_profiles(given)
    quality = QualityTable.load(given.quality) if given.quality else FULL_PROMPT_ONLY
    error = dict(read_config(given.error_from).error) if given.error_from else {}
    workload = read_workload(given)
    watched = workload.through(lambda requests: counted(requests, "requests"), "read")
    traffic, summary = make_buckets(watched, given.buckets, given.ends)
    ratios = tuple(ratio for ratio, _ in quality.points if ratio < 1)
    problem = Problem(
        world=World(device, cloud, link, quality=quality, error=error),
        traffic=tuple(traffic),
        rate=summary.rate,
        limits=Limits(
            Slo(_seconds(given.ttft_p95_ms), _seconds(given.max_gap_p99_ms), _quality(given)),
            given.max_grant,
            given.max_pace_ms / 1000,
            given.capacity,
        ),
        objective=Objective.named(given.objective),
        routes=_routes(given.routes),
        keep_ratios=(None, *ratios),
    )
    begun = time.perf_counter()
    plan = solve(problem)
    seconds = time.perf_counter() - begun
    config = split_config(
        plan,
        created=datetime.now(UTC).date().isoformat(),
        inputs=input_hashes(given, device, cloud, link, workload),
        error=error,
    )
    if summary.skipped.count:
        note(f"{summary.skipped.count:,} rows of the workload are no requests; see pd-plan workload")
    if given.out:
        given.out.write_text(to_toml(config), encoding="utf-8")
    if given.json:
        emit(_as_json(plan, config, seconds))
        return 0
    for role, profile in (("device", device), ("cloud", cloud.hardware), ("link", link)):
        say(f"{role:<7} {profile.name} ({provenance(profile)})")
    _print(plan)
    say(f"solved in {seconds * 1000:.0f} ms" + (f"; written to {given.out}" if given.out else ""))
    return 0


def _print(plan: Plan) -> None:
    rows = []
    for traffic, option, binding in zip(plan.problem.traffic, plan.options, plan.binding, strict=True):
        decision, mean, worst = option.decision, option.mean, option.worst
        rows.append(
            [
                "longer" if traffic.up_to is None else f"≤ {traffic.up_to:,}",
                f"{traffic.share:.1%}",
                decision.route.value,
                str(decision.grant) if decision.route is Route.SPLIT else "-",
                "-" if decision.keep_ratio is None else f"{decision.keep_ratio:g}",
                f"{decision.pace * 1000:.0f}",
                str(decision.chunk or "-"),
                f"{worst.ttft_p95 * 1000:,.0f}",
                f"{worst.max_gap_p99 * 1000:,.0f}",
                f"{mean.cloud_seconds:.3f}",
                f"{mean.cloud_tokens:.1f}",
                binding or "-",
            ]
        )
    header = [
        "prompt",
        "share",
        "route",
        "grant",
        "keep",
        "pace ms",
        "chunk",
        "TTFT p95",
        "gap p99",
        "cloud s",
        "tokens",
    ]
    table([*header, "decided by"], rows)
    used = ", ".join(f"{name} {share:.0%}" for name, share in plan.used.items())
    say(f"{plan.problem.rate:.3g} requests/s use of the cloud: {used}; objective {plan.value:.4g} per request")


def _as_json(plan: Plan, config: SplitConfig, seconds: float) -> dict[str, Any]:
    import msgspec

    from speed_controller.plan_file import file_plan

    return {
        "config": msgspec.to_builtins(file_plan(config)),
        "shares": [traffic.share for traffic in plan.problem.traffic],
        "requests_per_s": plan.problem.rate,
        "objective_per_request": plan.value,
        "cloud_used": plan.used,
        "solve_seconds": seconds,
    }


def _quality(given: argparse.Namespace) -> float | None:
    if given.quality and given.min_quality is None:
        raise PlannerError("--quality says what refinement costs; say with --min-quality how much of it is wanted")
    quality: float | None = given.min_quality
    return quality


def _routes(text: str) -> tuple[Route, ...]:
    try:
        return tuple(Route(part.strip()) for part in text.split(","))
    except ValueError:
        raise PlannerError(f"--routes is {text!r}; expected some of device, split, cloud with commas between") from None


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _ends(text: str) -> list[int]:
    try:
        ends = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} are no prompt lengths; write 512,2048,8192") from None
    if min(ends) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: prompt lengths are at least 1")
    return ends
