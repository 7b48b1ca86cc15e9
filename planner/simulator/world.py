"""What all answers of a run share, and the loop that plays them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from device_sdk.testing.virtual_time import EventLoop
from planner.simulator.cloud.gateway import Cloud
from planner.simulator.device import Device
from planner.simulator.network import Network
from planner.simulator.outcome import Outcome, Outcomes
from planner.simulator.pass_times import PassTimes
from speed_controller.settings import PaceSettings
from speed_controller.split import SplitSettings

if TYPE_CHECKING:
    from planner.core import CloudProfile, DeviceProfile, LinkProfile, Request, Workload
    from planner.simulator.cloud.job import Job
    from planner.simulator.trace import Tracer


def _default_split(_: int) -> SplitSettings:
    return SplitSettings()


@dataclass(frozen=True, slots=True)
class Setup:
    """Who is simulated. `split` gives the settings for a prompt of so many tokens."""

    device: DeviceProfile
    link: LinkProfile
    cloud: CloudProfile
    split: Callable[[int], SplitSettings] = _default_split
    pace: PaceSettings = field(default_factory=PaceSettings)
    seed: int = 0
    #: Of split answers, the share that is played token by token.
    played: float = 1.0


class Policy(Protocol):
    """How an answer is made."""

    @property
    def name(self) -> str: ...

    def begin(self, world: World, index: int, request: Request) -> None:
        """A request arrives now. Its outcome goes to `world.record` once, when all is known."""


@dataclass(slots=True)
class World:
    setup: Setup
    loop: EventLoop
    cloud: Cloud
    outcomes: Outcomes
    begun: int = 0
    #: Called with (index, outcome) as each answer ends.
    watch: Callable[[int, Outcome], None] = lambda _, __: None
    tracer: Tracer | None = None
    device_times: PassTimes = field(init=False)

    def __post_init__(self) -> None:
        self.device_times = PassTimes(self.setup.device)

    def rng(self, index: int, what: str) -> random.Random:
        """A stream of its own for each answer and purpose: no policy or order of events changes what another draws."""
        return random.Random(f"{self.setup.seed}/{what}/{index}")

    def noise(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.setup.seed, index])

    def device(self, index: int, length: int) -> Device:
        return Device(self.device_times, length, self.rng(index, "device"))

    def network(self, index: int) -> Network:
        return Network.of(self.setup.link, self.rng(index, "link"))

    def plays(self, index: int) -> bool:
        """Whether answer `index` is one of those that are played token by token."""
        if self.traces(index):
            return True
        share = self.setup.played
        return int((index + 1) * share) > int(index * share)

    def traces(self, index: int) -> bool:
        return self.tracer is not None and self.tracer.index == index

    def record(self, index: int, request: Request, outcome: Outcome, jobs: Sequence[Job] = ()) -> None:
        """The answer is over; `jobs` are those of the cloud."""
        if self.tracer is not None and self.traces(index):
            self.tracer.outcome(request, outcome)
            self.tracer.cloud(request, jobs)
        self.outcomes.add(outcome)
        self.watch(index, outcome)


def simulate(
    setup: Setup,
    workload: Workload,
    policy: Policy,
    *,
    watch: Callable[[int, Outcome], None] = lambda _, __: None,
    stop: Callable[[], bool] = lambda: False,
    tracer: Tracer | None = None,
) -> World:
    """Play every request of `workload`, in bounded memory but for one row each; `stop` ends the run early."""
    loop = EventLoop()
    cloud = Cloud(setup.cloud, loop, seed=setup.seed, block_tokens=workload.block_tokens)
    world = World(setup, loop, cloud, Outcomes(), watch=watch, tracer=tracer)
    requests = iter(workload)

    def feed(request: Request, rest: Iterator[Request]) -> None:
        index, world.begun = world.begun, world.begun + 1
        following = next(rest, None)
        if following is not None:
            loop.at(following.arrival, lambda: feed(following, rest))
        policy.begin(world, index, request)

    first = next(requests, None)
    if first is not None:
        loop.at(first.arrival, lambda: feed(first, requests))
    loop.run(stop)
    return world
