"""The service's own engine loop in virtual time: an emulated engine, and devices that show what they get at a pace."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.cost_engine import CostEngine
from cloud_service.scheduler.engine_loop import EngineLoop, Plan
from cloud_service.scheduler.generation import Generation
from cloud_service.scheduler.jobs import Emitted, Event, Job
from cloud_service.scheduler.mailbox import Begin, Command, Leave, Mailbox, Reported
from cloud_service.scheduler.passes import PassGuard
from cloud_service.scheduler.policy import PassBudget, Share, Work, plan_pass
from cloud_service.scheduler.seats import Seats
from cloud_service.scheduler.slack import Report, Targets
from device_sdk.generation.plan import Patience
from device_sdk.generation.telling import Told
from model_runtime.sampling import SamplingParams
from speed_controller.split import grant_needed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloud_service.scheduler.policy import Costs
    from model_runtime.profiles import HardwareProfile

#: Seconds.
PACE = 0.05
TTFT_TARGET = 1.0
PATIENCE = Patience()
#: Tokens per second of the emulated phones, and seconds per token after the hand-over.
DEVICE_PREFILL, DEVICE_TPOT = 1_400.0, 0.045

PLACES, PASS_TOKENS, KV_TOKENS = 32, 512, 200_000


# --- what is compared -----------------------------------------------------------------------------------------------


def fifo(works: Iterable[Work], budget: PassBudget, costs: Costs, now: float) -> list[Share]:
    """In the order of arrival, decode tokens before prompts, as continuous batching is usually done."""
    return _in_order(sorted(works, key=lambda work: work.key), budget)


class RoundRobin:
    """Whoever was served longest ago comes first, decode tokens before prompts; a quarter is kept for prompts."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._passes = 0

    def __call__(self, works: Iterable[Work], budget: PassBudget, costs: Costs, now: float) -> list[Share]:
        shares = _in_order(sorted(works, key=lambda work: (self._last.get(work.key, 0), work.key)), budget)
        self._passes += 1
        self._last |= {share.key: self._passes for share in shares}
        return shares


def _in_order(queue: list[Work], budget: PassBudget) -> list[Share]:
    prompts = [work for work in queue if not work.decoding]
    kept = min(budget.kept_for_prefill, sum(work.pending for work in prompts))
    shares = [Share(work.key, 1) for work in queue if work.decoding][: budget.tokens - kept]
    left = budget.tokens - len(shares)
    for work in prompts:
        take = min(work.pending, left)
        if take:
            shares.append(Share(work.key, take))
            left -= take
    return shares


#: By name: how to make a plan, and whether short prompts are seated before long ones.
POLICIES: dict[str, tuple[Callable[[], Plan], bool]] = {
    "slack": (lambda: plan_pass, True),
    "FIFO": (lambda: fifo, False),
    "round-robin": (RoundRobin, False),
}

# --- the load -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Visit:
    """One request."""

    arrival: float
    prompt: int
    grant: int
    #: When its device takes over; infinite where the whole answer comes from the cloud.
    ready: float


def visits(profile: HardwareProfile, load: float, count: int, seed: int) -> list[Visit]:
    """Poisson arrivals that keep the engine busy for the share `load` of the time, if it runs full passes: four in
    five from devices that take over, the others want all of their answer from the cloud."""
    dice = random.Random(seed)
    shapes = []
    for _ in range(count):
        prompt = min(6000, max(64, round(dice.lognormvariate(math.log(1000), 0.8))))
        if dice.random() < 0.2:
            shapes.append((prompt, dice.randint(64, 512), math.inf))
            continue
        # Devices differ, and know their own speed to some 10%.
        rate = DEVICE_PREFILL * dice.uniform(0.5, 1.5)
        needed = grant_needed(
            ready_without=prompt / rate,
            cloud_ttft=0.2,
            pace=PACE,
            prefill_rate=rate,
            device_tpot=DEVICE_TPOT,
        )
        grant = math.ceil(1.1 * needed) + 2
        shapes.append((prompt, grant, (prompt + grant) / rate * dice.uniform(0.9, 1.1)))
    token_s = profile.pass_ms([(1000, 1)] * PLACES) / PLACES / 1000
    work = sum(profile.prompt_ms(prompt) / 1000 + grant * token_s for prompt, grant, _ in shapes)
    clock, found = 0.0, []
    for prompt, grant, takes in shapes:
        clock += dice.expovariate(load * count / work)
        found.append(Visit(clock, prompt, grant, clock + takes))
    return found


# --- the world ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Viewer:
    """Who reads an answer: shows the first token at once, and one every PACE from then on."""

    visit: Visit
    arrivals: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    late: int = 0
    over: bool = False
    #: What the service was told last.
    told: Told | None = None

    def get(self, now: float, count: int) -> None:
        for _ in range(count):
            dry = self.shown[-1] + PACE if self.shown else math.inf
            self.late += now > dry + 1e-9
            self.arrivals.append(now)
            self.shown.append(max(now, dry) if self.shown else now)


class World:
    """One load under one policy."""

    def __init__(self, profile: HardwareProfile, policy: str, load: list[Visit]) -> None:
        plan, short_first = POLICIES[policy]
        self.now = 0.0
        self.viewers = [Viewer(visit) for visit in load]
        self._short_first = short_first
        self._events: list[tuple[float, int, Callable[[], Command | None]]] = []
        self._numbers = itertools.count()
        self.engine = CostEngine(
            lambda chunks: profile.pass_ms(chunks) / 1000, self._pass_time, kv_tokens=KV_TOKENS, max_sequences=PLACES
        )
        self._loop = EngineLoop(
            self.engine,
            PassBudget(PASS_TOKENS),
            PLACES,
            Seats(self.engine, KV_TOKENS, keeps=False),
            mailbox=Mailbox(),
            guard=PassGuard(),
            clock=lambda: self.now,
            deliver=lambda events: [listener(event) for listener, event in events] and None,
            ended=lambda key: None,
            observe=lambda seconds, prefill, decode: None,
            plan=plan(),
        )
        for key, viewer in enumerate(self.viewers):
            self._at(viewer.visit.arrival, lambda key=key, viewer=viewer: self._begin(key, viewer))

    def run(self) -> None:
        while True:
            commands = []
            while self._events and self._events[0][0] <= self.now:
                command = heapq.heappop(self._events)[2]()
                if command is not None:
                    commands.append(command)
            before = self.now
            self._loop.step(commands)
            if self.now == before:
                if not self._events:
                    return
                self.now = max(self.now, self._events[0][0])

    def _pass_time(self, seconds: float) -> None:
        self.now += seconds

    def _at(self, time: float, what: Callable[[], Command | None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), what))

    def _begin(self, key: int, viewer: Viewer) -> Command:
        visit = viewer.visit
        job = Job(f"v{key}", (key % 256,) * visit.prompt, (), visit.grant, SamplingParams())
        generation = Generation(
            key=key,
            job=job,
            listener=lambda event: self._hear(key, viewer, event),
            tokenizer=self.engine.tokenizer,
            context_length=self.engine.info.context_length,
            arrived=self.now,
            targets=Targets(TTFT_TARGET, PACE),
            prefill_s=visit.prompt * self._loop.pace.prefill_s if self._short_first else 0.0,
        )
        if visit.ready < math.inf:
            self._at(visit.ready, lambda: None if viewer.over else Leave(key, tell=True))
        return Begin(generation)

    def _hear(self, key: int, viewer: Viewer, event: Event) -> None:
        if isinstance(event, Emitted):
            if not viewer.arrivals and viewer.visit.ready < math.inf:
                self._at(self.now, lambda: self._progress(key, viewer))
            viewer.get(self.now, len(event.ids))
        else:
            viewer.over = True

    def _progress(self, key: int, viewer: Viewer) -> Command | None:
        if viewer.over:
            return None
        self._at(self.now + PATIENCE.progress_every, lambda: self._progress(key, viewer))
        ready_at, told = viewer.visit.ready, viewer.told
        stands = Told(self.now, bisect_right(viewer.shown, self.now), PACE, ready_at)
        every = PATIENCE.progress_at_least_every
        if told is not None and not told.stale(stands, len(viewer.arrivals), at_least_every=every):
            return None
        viewer.told = stands
        return Reported(key, Report(self.now, stands.shown, PACE, ready_at))
