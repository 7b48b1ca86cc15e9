"""Small worlds to simulate in: made-up hardware whose times are easy to reckon."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.profiles import HardwareProfile, LinkProfile
from planner.core import CloudProfile, Request, Workload
from planner.simulator.outcome import COLUMNS
from planner.simulator.world import Policy, Setup, World, simulate


def hardware(
    *, rate: float = 10_000.0, tpot_ms: float = 20.0, share: float | None = 0.03, **more: object
) -> HardwareProfile:
    return HardwareProfile(
        name="made-up",
        title="made up",
        source="this test",
        prefill_tokens_per_s=((1, rate),),
        decode_ms=((1, tpot_ms),),
        batch_share=share,
        **more,  # type: ignore[arg-type]
    )


def phone(*, rate: float = 1_000.0, tpot_ms: float = 40.0, **more: object) -> HardwareProfile:
    return hardware(rate=rate, tpot_ms=tpot_ms, share=None, **{"kv_bytes_per_token": 1000, **more})


def setup(
    *,
    device: HardwareProfile | None = None,
    cloud: HardwareProfile | None = None,
    link: LinkProfile | None = None,
    seed: int = 0,
    played: float = 1.0,
    **more: object,
) -> Setup:
    sizes = {"instances": 1, "max_sequences": 8, "queue_depth": 1000, **more}
    return Setup(
        device or phone(),
        link or LinkProfile("made-up", rtt_ms=20),
        CloudProfile(cloud or hardware(), **sizes),  # type: ignore[arg-type]
        seed=seed,
        played=played,
    )


def workload(requests: Sequence[Request]) -> Workload:
    return Workload("made-up", "this test", lambda _: iter(requests))


def play(chosen: Setup, requests: Sequence[Request], policy: Policy) -> World:
    return simulate(chosen, workload(requests), policy)


def rows(world: World) -> list[dict[str, float]]:
    """One for each answer, in order of arrival."""
    columns = {name: world.outcomes.column(name) for name in COLUMNS}
    order = columns["arrival"].argsort(kind="stable")
    return [{name: float(values[at]) for name, values in columns.items()} for at in order]
