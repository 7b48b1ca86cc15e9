"""How even is the speed controller? The largest gap shown ÷ the smallest possible in hindsight, over arrival patterns.

Every pattern is a virtual world (`pacing_worlds.py`): a cloud, a link and a device whose forecasts are as wrong as
forecasts are, and get better as the device prefills. Virtual time, so the machine's load changes nothing.
Run: `python -m benchmarks.pacing [--quick] [--json FILE] [--seed N]`. Definitions: docs/metrics.md, "Pacing".
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pacing_patterns import FAMILIES, PACE
from benchmarks.pacing_worlds import Simulation, World, informed_gap, replay
from demos.side_by_side.hardware import machine
from speed_controller import PaceSettings
from speed_controller.clairvoyant import clairvoyant, smallest_largest_gap

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS = PaceSettings(pace=PACE)
#: (share of the patterns, largest ratio aimed at)
AIMS = ((0.5, 1.05), (0.99, 1.3))


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern's figures. Ratios are max(largest gap, pace) ÷ max(the optimum, pace), so at least 1."""

    family: str
    seed: int
    tokens: int
    optimum_ms: float
    largest_gap_ms: float
    smooth: float
    fixed: float
    off: float
    #: `smooth` ÷ the optimum of a schedule that hears of each fault only when it begins.
    informed: float
    #: How much later the last token is shown than in the clairvoyant schedule.
    late_end_ms: float
    faults: int
    extended: int


def largest_gap(shown: Sequence[float]) -> float:
    return max((after - before for before, after in pairwise(shown)), default=0.0)


def measure(world: World) -> Pattern:
    run = Simulation(world, SETTINGS).simulate()
    if len(run.shown) != len(run.arrivals):
        raise RuntimeError(f"{world}: {len(run.arrivals)} tokens arrived and {len(run.shown)} were shown")
    optimum = smallest_largest_gap(run.arrivals, PACE)

    def ratio(shown: Sequence[float], best: float = optimum) -> float:
        return max(largest_gap(shown), PACE) / best

    return Pattern(
        family=world.family,
        seed=world.seed,
        tokens=len(run.shown),
        optimum_ms=1000 * optimum,
        largest_gap_ms=1000 * largest_gap(run.shown),
        smooth=ratio(run.shown),
        fixed=ratio(replay(run.arrivals, PaceSettings(mode="fixed", pace=PACE))),
        off=ratio(replay(run.arrivals, PaceSettings(mode="off"))),
        informed=ratio(run.shown, informed_gap(run.arrivals, run.faults, PACE)),
        late_end_ms=1000 * (run.shown[-1] - clairvoyant(run.arrivals, PACE)[-1]),
        faults=len(run.faults),
        extended=run.extended,
    )


def quantile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[round(share * (len(ranked) - 1))]


COLUMNS = (
    ("smooth", (0.5, 0.9, 0.99, 1.0)),
    ("informed", (0.5, 0.9, 0.99)),
    ("fixed", (0.5, 0.9, 0.99)),
    ("off", (0.5, 0.9, 0.99)),
)


def table(patterns: Sequence[Pattern]) -> list[str]:
    """A line for each family, for all, and for all in which nothing happened that no forecast could tell."""
    heads = [
        "".join(f"{'max' if share == 1 else f'p{100 * share:.0f}':>7}" for share in shares) for _, shares in COLUMNS
    ]
    lines = [
        f"{'':<28}" + "".join(f" | {name:^{len(head)}}" for (name, _), head in zip(COLUMNS, heads, strict=True)),
        f"{'pattern':<19}{'binding':>9}" + "".join(f" | {head}" for head in heads) + " | end late p50    p99",
    ]
    groups = {
        family: [each for each in patterns if each.family == family]
        for family in dict.fromkeys(p.family for p in patterns)
    }
    groups["all"] = list(patterns)
    groups["all foretold"] = [each for each in patterns if each.faults == 0 and each.family != "random"]
    for name, members in groups.items():
        if not members:
            continue
        binding = sum(each.optimum_ms > 1000 * PACE + 1e-9 for each in members) / len(members)
        line = f"{name:<19}{binding:>9.0%}"
        for column, shares in COLUMNS:
            values = [getattr(each, column) for each in members]
            line += " | " + "".join(f"{quantile(values, share):>7.2f}" for share in shares)
        late = [each.late_end_ms for each in members]
        lines.append(line + f" | {quantile(late, 0.5):>9.0f} ms {quantile(late, 0.99):>6.0f} ms")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="130 patterns instead of 1,300")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every pattern's figures")
    parser.add_argument("--seed", type=int, default=0, help="of the patterns (default 0)")
    options = parser.parse_args(argv)

    patterns = []
    for make in FAMILIES:
        rng = random.Random(f"{options.seed}/{make.__name__}")
        patterns += [measure(make(rng)) for _ in range(10 if options.quick else 100)]

    print(f"Largest gap ÷ optimum, {len(patterns)} patterns, preferred pace {1000 * PACE:.0f} ms, virtual time")
    print("\n".join(table(patterns)))
    reached = True
    for share, aim in AIMS:
        value = quantile([each.smooth for each in patterns], share)
        reached = reached and value <= aim
        print(f"aim: p{100 * share:.0f} of all ≤ {aim}: {value:.3f}, {'reached' if value <= aim else 'MISSED'}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine(), "seed": options.seed, "quick": options.quick, "aims_reached": reached}
        options.json.write_text(json.dumps({**result, "patterns": [asdict(each) for each in patterns]}))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
