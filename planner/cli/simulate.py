"""`pd-plan simulate`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from planner.cli.compare import add_simulated, read_setup
from planner.cli.inputs import add_profiles, add_workload, read_workload
from planner.cli.output import counted, emit, say
from planner.compare.metrics import Spread, measure, metrics_json
from planner.compare.report import number, profile_json, size
from planner.errors import PlannerError
from planner.policies.alone import InCloud, OnDevice
from planner.policies.kv_shipping import KvShipping, kv_bytes
from planner.policies.planned import Planned
from planner.policies.split import Split
from planner.simulator.trace import Tracer
from planner.simulator.world import Policy, simulate

POLICIES = ("split", "split+refine", "on-device", "in-cloud", "kv-shipping")

_DESCRIPTION = """\
Replay a workload in virtual time: split answers by the SDK's own state machine and speed controller, against a cloud
that batches, admits and caches. Deterministic by --seed. --trace writes one answer as a Chrome trace: open it in
chrome://tracing or https://ui.perfetto.dev.
"""
_EPILOG = """\
example:
  pd-plan simulate --workload poisson:rate=4,requests=200,prompt=1000,output=150 --cloud datacentre-h100-pcie \\
      --link 4g --trace 17 --trace-out answer-17.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    add_workload(parser)
    add_profiles(parser)
    add_simulated(parser)
    parser.add_argument("--policy", choices=POLICIES, default="split", help="how answers are made (%(default)s)")
    parser.add_argument(
        "--played", type=float, default=1.0, metavar="SHARE",
        help="of split answers that are played token by token, for gaps, TPOT and stalls (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--trace", type=int, metavar="N", help="the answer to trace, counted from 0")
    parser.add_argument("--trace-out", type=Path, default=Path("trace.json"), metavar="FILE", help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> int:
    if not 0 <= given.played <= 1:
        raise PlannerError(f"--played is {given.played}; a share of 0 to 1 is expected")
    setup, config = read_setup(given)
    setup = dataclasses.replace(setup, played=given.played)
    policy: Policy
    match given.policy:
        case "on-device":
            policy = OnDevice()
        case "in-cloud":
            policy = InCloud()
        case "kv-shipping":
            kv_bytes(setup.device)
            policy = KvShipping()
        case name if config is not None:
            policy = Planned(config, name == "split+refine", given.keep_ratio)
        case name:
            policy = Split(name, given.keep_ratio if name == "split+refine" else None)
    workload = read_workload(given).through(lambda requests: counted(requests, "requests"), "replayed")
    tracer = None if given.trace is None else Tracer(given.trace)
    world = simulate(setup, workload, policy, tracer=tracer)
    if tracer is not None:
        if not tracer.events:
            raise PlannerError(f"there is no answer {given.trace} with tokens; the workload has {world.begun}")
        given.trace_out.write_text(tracer.text(), encoding="utf-8")
    metrics = measure(world.outcomes, setup.device)
    if given.json:
        emit(
            {
                "policy": policy.name,
                **metrics_json(metrics),
                "device": profile_json(setup.device),
                "cloud": profile_json(setup.cloud.hardware),
                "link": profile_json(setup.link),
                "seed": setup.seed,
                "instances_busy": [each.busy_seconds / world.loop.now for each in world.cloud.instances],
            }
        )
        return 0
    say(f"{policy.name}: {metrics.answers:,} answers, {metrics.played:,} played token by token; all simulated")
    for name, spread in (("TTFT", metrics.ttft_ms), ("TPOT", metrics.tpot_ms), ("largest gap", metrics.max_gap_ms)):
        say(f"{name:<12} {_spread(spread)}")
    say(f"cloud        {metrics.cloud_seconds:.3f} s and {metrics.cloud_tokens:.1f} tokens per request")
    say(f"device       {metrics.device_seconds:.2f} s per request")
    say(f"network      {size(metrics.bytes_up)} up and {size(metrics.bytes_down)} down per request")
    if metrics.rejected_share:
        say(f"rejected     {metrics.rejected_share:.2%}")
    if tracer is not None:
        say(f"answer {given.trace} is in {given.trace_out}")
    return 0


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    values = (("mean", spread.mean), ("p50", spread.p50), ("p95", spread.p95), ("p99", spread.p99))
    return ", ".join(f"{name} {number(value)}" for name, value in values) + " ms"
