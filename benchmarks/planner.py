"""How fast a trace is replayed, how that grows with its length, and how long `pd-plan compare` takes on a real one.

Replay: a generated workload of 10³ to 10⁶ requests, split answers in outline and `in-cloud` answers, one process;
requests per second of CPU time, so that another process's share of the machine is no part of it.
Compare: the Azure conversation trace, where PD_TRACES names the folder that holds it, on a mixed and on a disaggregated
cloud. Simulated hardware; the seconds are this machine's.
Run: `python -m benchmarks.planner [--quick] [--json FILE] [--most N]`. What is compared: docs/planner.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from demos.side_by_side.hardware import machine
from model_runtime.profiles import load_link, load_profile
from planner.compare.report import as_json
from planner.compare.run import Comparison, Plan, compare
from planner.core import CloudProfile, Slo
from planner.policies.alone import InCloud
from planner.policies.split import Split
from planner.simulator.world import Policy, Setup, simulate
from planner.workloads import first, generate, open_trace

TRACE = "azure_llm_2023_conv.csv"
#: Seconds for a comparison on two cores, and MiB.
MOST_SECONDS, MOST_MIB = 120.0, 2048.0
SLO = Slo(1.0, 0.1)
#: Of the split with refinement.
LEAST_TTFT_CUT, MOST_GAP_MS = 0.60, 100.0


def setup(prefill_instances: int, instances: int) -> Setup:
    """A published phone, accelerator and 5G. Apart, few decode places make them the bottleneck."""
    apart = prefill_instances > 0
    cloud = CloudProfile(
        load_profile("datacentre-h100-pcie"),
        instances=instances,
        prefill_instances=prefill_instances,
        max_sequences=8 if apart else 32,
        queue_depth=64,
    )
    return Setup(load_profile("phone-snapdragon-8-elite"), load_link("5g"), cloud, played=0.0)


def replay(count: int, policy: Policy) -> dict[str, Any]:
    workload = generate(f"poisson:rate=5,requests={count},prompt=1000,output=200,seed=1")
    begun, wall = time.process_time(), time.perf_counter()
    world = simulate(setup(0, 4), workload, policy)
    seconds = time.process_time() - begun
    return {
        "policy": policy.name,
        "requests": len(world.outcomes),
        "cpu_seconds": seconds,
        "wall_seconds": time.perf_counter() - wall,
        "per_s": count / seconds,
        "largest_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def aims(name: str, comparison: Comparison, seconds: float) -> list[tuple[str, bool]]:
    by_name = {each["name"]: each for each in as_json(comparison)["policies"]}
    ours, device, cloud = by_name["split+refine"], by_name["on-device"], by_name["in-cloud"]
    said = []
    for which in ("mean", "p99"):
        cut = 1 - ours["ttft_ms"][which] / device["ttft_ms"][which]
        good = cut >= LEAST_TTFT_CUT
        said.append((f"{name}: TTFT {which} {cut:.1%} below on-device, aim ≥ {LEAST_TTFT_CUT:.0%}", good))
    gap = ours["max_gap_ms"]["p99"]
    said.append((f"{name}: largest gap p99 {gap:.1f} ms, aim < {MOST_GAP_MS:g} ms", gap < MOST_GAP_MS))
    for disco in ("disco-d", "disco-s"):
        for what, values in (
            ("TTFT mean", (ours["ttft_ms"]["mean"], by_name[disco]["ttft_ms"]["mean"])),
            ("cloud seconds", (ours["cloud_seconds_per_request"], by_name[disco]["cloud_seconds_per_request"])),
        ):
            said.append((f"{name}: {what} {values[0]:.4g}, {disco} {values[1]:.4g}, aim below", values[0] < values[1]))
    ratio = ours["goodput_rps"] / cloud["goodput_rps"] if cloud["goodput_rps"] else float("nan")
    said.append((f"{name}: goodput {ratio:.2f} × in-cloud, bounds {ours['bound_ratio']:.2f} × apart", ratio > 1))
    said.append(
        (
            f"{name}: {seconds:.0f} s ({comparison.cpu_seconds:.0f} s of CPU time), aim < {MOST_SECONDS:g} s",
            seconds < MOST_SECONDS,
        )
    )
    return said


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 1,000 requests, 300 of the trace")
    parser.add_argument("--most", type=int, default=1_000_000, metavar="N", help="longest replay (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    options = parser.parse_args(argv)

    most = min(options.most, 1_000) if options.quick else options.most
    counts = [count for count in (1_000, 10_000, 100_000, 1_000_000) if count <= most]
    policies: tuple[Policy, ...] = (InCloud(), Split())
    replays = []
    for count in counts:
        for policy in policies:
            replays.append(replay(count, policy))
            said = (
                "{policy:<10} {requests:>9,} requests: {cpu_seconds:.1f} s CPU, {per_s:,.0f}/s, {largest_mib:.0f} MiB"
            )
            print(said.format(**replays[-1]), flush=True)

    reached, comparisons = True, {}
    folder = os.environ.get("PD_TRACES")
    if folder is None:
        print(f"PD_TRACES is not set: no comparison on {TRACE}")
    for name, chosen in (("mixed", setup(0, 4)), ("disaggregated", setup(2, 8))) if folder else ():
        workload = open_trace(Path(folder or "") / TRACE)
        plan = Plan(chosen, SLO, goodput_requests=100 if options.quick else 1_000, played=30 if options.quick else 400)
        begun = time.perf_counter()
        comparison = compare(first(workload, 300) if options.quick else workload, plan)
        seconds = time.perf_counter() - begun
        comparisons[name] = as_json(comparison)
        for said, good in aims(name, comparison, seconds):
            print(f"{said}: {'reached' if good else 'MISSED'}")
            reached = reached and good
    mib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(f"largest process: {mib:,.0f} MiB, aim < {MOST_MIB:g}: {'reached' if mib < MOST_MIB else 'MISSED'}")
    reached = reached and mib < MOST_MIB
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine(), "quick": options.quick, "aims_reached": reached, "largest_mib": mib}
        options.json.write_text(json.dumps({**result, "replays": replays, "comparisons": comparisons}))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
