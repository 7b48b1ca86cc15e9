"""The families of arrival patterns for `pacing.py`: each makes one world from a random generator."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.pacing_worlds import Cloud, Device, Link, World
from speed_controller import grant_needed

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

#: The preferred pace that grants are chosen for, seconds per token.
PACE = 0.05


def wired(rng: random.Random) -> Link:
    return Link(rng.uniform(0.01, 0.06), jitter=0.001)


def wifi(rng: random.Random) -> Link:
    return Link(
        rng.uniform(0.02, 0.08), jitter=rng.uniform(0.002, 0.008), stalls=rng.uniform(0.5, 2), stall=(0.03, 0.15)
    )


def mobile(rng: random.Random) -> Link:
    return Link(
        rng.uniform(0.05, 0.12), jitter=rng.uniform(0.005, 0.02), stalls=rng.uniform(0.2, 0.6), stall=(0.1, 0.4)
    )


def device(rng: random.Random, **changes: Any) -> Device:
    rate = rng.uniform(200, 1500)
    given: dict[str, Any] = {
        "prompt": int(rate * rng.uniform(0.6, 6.0)),
        "prefill_rate": rate,
        "tpot": rng.uniform(0.025, 0.05),
        "chunk": max(32, int(rate * rng.uniform(0.1, 0.4))),
        "rate_error": rng.uniform(0.8, 1.2),
        "tpot_error": rng.uniform(0.9, 1.1),
    }
    return Device(**{**given, **changes})


def split(rng: random.Random, family: str, link: Link, own: Device, *, scale: float = 1.0, **cloud: Any) -> World:
    """A grant as the planner would choose it from the profile, a fifth and four tokens too many for safety."""
    believed = own.prefill_rate * own.rate_error
    ttft = link.round_trip + own.prompt / 20_000 + rng.uniform(0.02, 0.1)
    needed = grant_needed(
        ready_without=own.prompt / believed,
        cloud_ttft=ttft,
        pace=PACE,
        prefill_rate=believed,
        device_tpot=min(own.tpot, PACE),
    )
    grant = max(2, round(scale * (4 + 1.2 * needed)))
    served = Cloud(**{"ttft": ttft, "tpot": rng.uniform(0.01, 0.03), "grant": grant, **cloud})
    return World(family, rng.randint(80, 300), rng.getrandbits(32), link, served, own)


def steady(rng: random.Random) -> World:
    return split(rng, "steady", wired(rng), device(rng))


def bursty_wifi(rng: random.Random) -> World:
    return split(rng, "wifi", wifi(rng), device(rng))


def bursty_mobile(rng: random.Random) -> World:
    return split(rng, "4g", mobile(rng), device(rng))


def cloud_stalls(rng: random.Random) -> World:
    return split(rng, "cloud stalls", wifi(rng), device(rng), pause_rate=0.03, pause=(0.1, 0.8))


def late_device(rng: random.Random) -> World:
    """The profile promises up to twice the rate, or another app takes half of it for a while."""
    if rng.random() < 0.5:
        return split(rng, "late device", wifi(rng), device(rng, rate_error=rng.uniform(1.2, 2.0)))
    since = rng.uniform(0.2, 2.0)
    slow = ((since, since + rng.uniform(0.5, 2.0), rng.uniform(1.5, 2.5)),)
    return split(rng, "late device", wifi(rng), device(rng, slow=slow))


def early_device(rng: random.Random) -> World:
    return split(rng, "early device", wifi(rng), device(rng, rate_error=rng.uniform(0.5, 0.8)))


def throttling(rng: random.Random) -> World:
    """From some moment on the device is slower for good."""
    slow = ((rng.uniform(0.5, 8.0), 1e9, rng.uniform(1.3, 2.0)),)
    return split(rng, "throttling", wired(rng), device(rng, slow=slow, tpot=rng.uniform(0.02, 0.04)))


def lost_cloud(rng: random.Random) -> World:
    """Lost after some of the grant; the link says so at once, or falls silent for half a second first."""
    world = split(rng, "lost cloud", wifi(rng), device(rng))
    assert world.cloud is not None
    lost_at = world.cloud.ttft + rng.uniform(0.0, world.cloud.tpot * world.cloud.grant)
    return replace(world, cloud=replace(world.cloud, lost_at=lost_at, lost_known=rng.choice((0.0, 0.5))))


def small_grant(rng: random.Random) -> World:
    return split(rng, "small grant", wifi(rng), device(rng), scale=rng.uniform(0.2, 0.7))


def slow_device(rng: random.Random) -> World:
    return split(rng, "slow device", wired(rng), device(rng, tpot=rng.uniform(0.045, 0.07)))


def random_arrivals(rng: random.Random) -> World:
    """No rhythm at all: each token takes anything from a fraction to a multiple of the mean."""
    length = rng.randint(80, 300)
    cloud = Cloud(rng.uniform(0.1, 0.6), rng.uniform(0.01, 0.06), length, spread=rng.uniform(0.5, 1.2))
    return World("random", length, rng.getrandbits(32), wired(rng), cloud)


def in_cloud(rng: random.Random) -> World:
    length = rng.randint(80, 300)
    link = rng.choice((wired, wifi, mobile))(rng)
    cloud = Cloud(rng.uniform(0.1, 0.6), rng.uniform(0.01, 0.06), length, pause_rate=0.01, pause=(0.05, 0.15))
    return World("in cloud", length, rng.getrandbits(32), link, cloud)


def on_device(rng: random.Random) -> World:
    own = device(
        rng, tpot=rng.uniform(0.02, 0.09), spread=rng.uniform(0.02, 0.12), hiccup_rate=0.01, hiccup=(0.02, 0.1)
    )
    return World("on device", rng.randint(80, 300), rng.getrandbits(32), device=own)


FAMILIES: tuple[Callable[[random.Random], World], ...] = (
    steady,
    bursty_wifi,
    bursty_mobile,
    cloud_stalls,
    late_device,
    early_device,
    throttling,
    lost_cloud,
    small_grant,
    slow_device,
    in_cloud,
    on_device,
    random_arrivals,
)
