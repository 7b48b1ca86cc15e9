"""Random but plausible optimization problems, small enough to try everything."""

from __future__ import annotations

import random

from model_runtime.profiles import HardwareProfile, LinkProfile
from planner.core import CloudProfile, Slo
from planner.cost import Load, QualityTable, World
from planner.optimizer import Limits, Objective, Problem, Traffic

#: Paces that the exhaustive search tries; the slowest allowed one is added to them.
PACES = (0.03, 0.05)


def device(rng: random.Random) -> HardwareProfile:
    block = rng.choice((1, 1, 64, 128))
    rate = rng.uniform(150, 3000)
    return HardwareProfile(
        name="random-device",
        title="random",
        source="random",
        prefill_tokens_per_s=((128, rate), (8192, rate * rng.uniform(0.5, 1.0))),
        prefill_block=block,
        decode_ms=((1, rng.uniform(15, 70)), (8192, rng.uniform(70, 90))),
        pass_overhead_ms=rng.choice((0.0, 4.0)),
        jitter=rng.uniform(0, 0.1),
        spread=rng.uniform(0, 0.2),
        prefill_watts=rng.uniform(3, 10),
        decode_watts=rng.uniform(2, 8),
    )


def cloud(rng: random.Random) -> CloudProfile:
    rate = rng.uniform(3000, 12_000)
    hardware = HardwareProfile(
        name="random-cloud",
        kind="datacentre",
        title="random",
        source="random",
        prefill_tokens_per_s=((512, rate), (8192, rate * 0.6)),
        decode_ms=((256, rng.uniform(8, 25)), (8192, 26.0)),
        batch_share=rng.choice((None, 0.03, 0.1)),
        jitter=0.02,
    )
    instances = rng.randint(1, 3)
    return CloudProfile(
        hardware,
        instances=instances,
        prefill_instances=rng.choice((0, 0, instances - 1)),
        max_sequences=rng.choice((4, 8, 32)),
        price_per_hour=rng.uniform(0.5, 5),
    )


def problem(seed: int, *, grants: tuple[int, int] = (4, 12), chunks: tuple[int, ...] = (128, 512)) -> Problem:
    rng = random.Random(seed)
    link = LinkProfile("random", rng.uniform(5, 120), rng.uniform(0, 15), rng.uniform(500, 50_000), 50_000.0)
    quality = QualityTable(source="random", points=((0.25, rng.uniform(0.7, 0.95)), (0.5, rng.uniform(0.95, 1.0))))
    load = Load(prefill=rng.uniform(0, 0.6), batch=rng.uniform(0, 8))
    world = World(device(rng), cloud(rng), link, load, quality)
    count = rng.randint(1, 2)
    ends = sorted(rng.sample(range(200, 6000), count))
    traffic = tuple(
        Traffic(
            up_to=None if at == count - 1 else end,
            share=1 / count,
            prompt=round(end * 0.8),
            longest_prompt=end,
            longest_output=400,
            outputs=tuple(sorted(rng.randint(1, 300) for _ in range(4))),
        )
        for at, end in enumerate(ends)
    )
    slo = Slo(
        ttft_p95=rng.choice((None, rng.uniform(0.2, 3))),
        max_gap_p99=rng.choice((None, rng.uniform(0.06, 0.2))),
        quality=rng.choice((None, 0.9, 0.97)),
    )
    objectives = ("cloud-seconds", "cloud-cost", "device-energy", "weighted:seconds=1,cost=1,energy=0.02")
    return Problem(
        world=world,
        traffic=traffic,
        rate=rng.choice((0.05, 0.5, 2.0)),
        limits=Limits(slo, max_grant=rng.randint(*grants), max_pace=rng.uniform(0.05, 0.12), capacity=0.8),
        objective=Objective.named(rng.choice(objectives)),
        keep_ratios=(None, 0.5, 0.25) if rng.random() < 0.7 else (None,),
        chunks=chunks,
    )
