"""What order of work is worth: late tokens and missed first tokens under slack, FIFO and round-robin, same load.

The service's own engine loop and policy run in virtual time over an *emulated* engine whose passes cost what a
hardware profile says, so the machine's load changes nothing. Devices show tokens every 50 ms from the first one on.
late    tokens that arrived after the device that shows the answer had none left, of all but first tokens
TTFT    first tokens that came later than 1 s after arrival
Run: `python -m benchmarks.scheduler [--quick] [--json FILE] [--profile NAME]`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.scheduler_world import PACE, POLICIES, TTFT_TARGET, World, visits
from demos.side_by_side.hardware import machine
from model_runtime.profiles import HardwareProfile, load_profile

LOADS = (0.5, 0.7, 0.9, 1.1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy under one load."""

    load: float
    policy: str
    #: Of all tokens but first ones, the share that came late; of all answers, the share with such a token.
    late: float
    stalled: float
    #: Of all answers, the share whose first token missed the target.
    missed: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    #: Share of the time in which the engine ran passes.
    busy: float


def measure(profile: HardwareProfile, load: float, policy: str, count: int, seeds: range) -> Outcome:
    worlds = [World(profile, policy, visits(profile, load, count, seed)) for seed in seeds]
    for world in worlds:
        world.run()
    viewers = [viewer for world in worlds for viewer in world.viewers]
    # A device that took over before its first token came never needed one.
    served = [viewer for viewer in viewers if viewer.arrivals]
    missed = sum(viewer.visit.ready > viewer.visit.arrival + TTFT_TARGET for viewer in viewers if not viewer.arrivals)
    ttft = np.array([viewer.arrivals[0] - viewer.visit.arrival for viewer in served])
    later = sum(len(viewer.arrivals) - 1 for viewer in served)
    return Outcome(
        load,
        policy,
        late=sum(viewer.late for viewer in served) / later,
        stalled=sum(viewer.late > 0 for viewer in served) / len(served),
        missed=(missed + float((ttft > TTFT_TARGET).sum())) / len(viewers),
        ttft_p50_ms=1000 * float(np.percentile(ttft, 50)),
        ttft_p99_ms=1000 * float(np.percentile(ttft, 99)),
        busy=sum(world.engine.busy for world in worlds) / sum(world.now for world in worlds),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer requests: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--profile", default="datacentre-a100-pcie", help="emulated hardware (default %(default)s)")
    options = parser.parse_args()
    profile = load_profile(options.profile)
    count, seeds = (150, range(1)) if options.quick else (500, range(2))
    print(f"EMULATED: {profile.title}; virtual time, {count} requests × {len(seeds)} seeds, pace {1000 * PACE:.0f} ms")
    print(" load policy           late  stalled  TTFT missed  TTFT p50       p99   busy")
    found = []
    for load in LOADS:
        for policy in POLICIES:
            each = measure(profile, load, policy, count, seeds)
            found.append(each)
            print(
                f"{load:5.1f} {policy:12} {each.late:8.2%} {each.stalled:8.1%} {each.missed:12.2%} "
                f"{each.ttft_p50_ms:6.0f} ms {each.ttft_p99_ms:6.0f} ms {each.busy:6.1%}",
                flush=True,
            )
    reached = _verdict(found)
    if options.json:
        result = {
            "machine": machine(),
            "emulated": profile.title,
            "quick": options.quick,
            "reached": reached,
            "outcomes": [asdict(each) for each in found],
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if reached else 1


def _verdict(found: list[Outcome]) -> bool:
    """Slack is to lose to neither on either count, at any load, by more than a tenth of a percent."""
    reached = True
    for ours in (each for each in found if each.policy == "slack"):
        for other in (each for each in found if each.load == ours.load and each.policy != "slack"):
            if ours.late > other.late + 0.001 or ours.missed > other.missed + 0.001:
                print(f"MISSED: at load {ours.load} slack is behind {other.policy}")
                reached = False
    return reached


if __name__ == "__main__":
    sys.exit(main())
