"""The cloud begins, the device finishes: the shipping generation state machine, driven in virtual time.

Answers that are not to be played token by token run in outline: the same machine without its pacing, as long as that
is proven to change nothing (`device_sdk.testing.outline`), and only until the device leads: the rest is the device's
alone. Where pacing begins to matter, the answer is played anew up to that moment with it, and goes on so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from device_sdk.generation import plan
from device_sdk.generation.commands import AskCloud, ExtendCloud, StopCloud
from device_sdk.generation.inputs import CloudFinished, CloudRefused, CloudTokens, Input, Refined
from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.spans import Spans
from device_sdk.report import Guard, Source
from device_sdk.settings import Mode
from device_sdk.testing.outline import Outline
from device_sdk.testing.simulation import Simulation
from device_sdk.testing.virtual_time import EventLoop
from planner.policies.asking import Asked
from planner.simulator.device import TOKEN, Tokens
from planner.simulator.outcome import Outcome
from planner.wire import PROMPT_TOKEN_BYTES, REQUEST_BYTES, TOKEN_BYTES
from speed_controller.estimates import CloudForecast, DeviceForecast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_sdk.generation.commands import Done
    from planner.core import Request
    from planner.simulator.world import Setup, World

#: Nobody knows beforehand how long an answer will be.
UNBOUNDED = 1_000_000
#: Prompt tokens at the end that a refinement always keeps, the question, and those that it keeps or drops together.
QUESTION, UNIT = 64, 32
#: Bytes of a kept span on the wire.
SPAN_BYTES = 8
#: As the service's default (`Settings.linger_ms`).
LINGER = 0.3


@dataclass(frozen=True, slots=True)
class Split:
    """`keep_ratio` None: the device reads the whole prompt."""

    name: str = "split"
    keep_ratio: float | None = None

    def begin(self, world: World, index: int, request: Request) -> None:
        _Answer(world, index, request, self.keep_ratio)


class _Answer:
    """One split answer, and the `CloudSide` of its simulation."""

    def __init__(self, world: World, index: int, request: Request, keep_ratio: float | None) -> None:
        self.world, self.index, self.request = world, index, request
        prompt = request.prompt_tokens
        self._split = world.setup.split(prompt)
        self._keep_ratio = None
        if keep_ratio is not None:
            self._keep_ratio = replace(self._split, keep_ratio=keep_ratio).keep_ratio_for(prompt)
        self._network = world.network(index)
        self._asked: list[Asked] = []
        self._heard_so_far: list[tuple[float, Input]] = []
        self._said: list[AskCloud | ExtendCloud | StopCloud] = []
        self._settled = self._open = self._recorded = self._live = False
        self._sampled = plays = world.plays(index)
        self._sim: Simulation = (Simulation if plays else _Outlined)(
            self._machine(GenerationMachine if plays else Outline),
            world.device(index, request.output_tokens),
            self,
            loop=world.loop,
            ended=self._done,
            after=(lambda: None) if plays else self._look,
        )
        self._sim.start()

    def _machine(self, kind: type[GenerationMachine]) -> GenerationMachine:
        setup, prompt, times = self.world.setup, self.request.prompt_tokens, self.world.device_times
        wish = None
        if self._keep_ratio is not None:
            wish = plan.RefineWish(self._keep_ratio, ((max(0, prompt - QUESTION), prompt),))
        return kind(
            plan.Request((TOKEN,) * prompt, UNBOUNDED, refine=wish),
            plan.SIDES[Mode.SPLIT],
            self._split,
            Tokens(),
            DeviceForecast(prefill_rate=times.rate(prompt), tpot=times.tpot(prompt)),
            believed_cloud(setup, prompt, refines=wish is not None),
            block=setup.device.prefill_block,
        )

    # --- the cloud's side ----------------------------------------------------------------------------------------

    def begin(self, loop: EventLoop, feed: Callable[[Input], None]) -> None:
        """What is heard goes to whichever simulation plays the answer then."""

    def ask(self, command: AskCloud) -> None:
        self._said.append(command)
        so_far, attempt = len(command.output or ()), command.attempt
        self._open = True
        asked = Asked(
            self.world,
            self.index,
            self.request,
            grant=command.grant,
            ended=partial(self._cloud_ended, attempt),
            heard=partial(self._heard, attempt, command.refine),
            so_far=so_far,
            watched=True,
            network=self._network,
        )
        asked.job.linger = LINGER
        self._asked.append(asked)

    def extend(self, command: ExtendCloud) -> None:
        self._said.append(command)
        job, cloud = self._asked[-1].job, self.world.cloud
        there = self._network.up.arrival(self.world.loop.now, TOKEN_BYTES)
        self.world.loop.at(there, lambda: cloud.extend(job, command.grant))

    def stop(self, command: StopCloud) -> None:
        if command.answer_tokens is not None:
            return  # For the service's account only: nothing waits for it, and an answer in outline never says it.
        self._said.append(command)
        self._asked[-1].stop(self.world.loop.now)

    def _heard(self, attempt: int, refine: bool, index: int, there: float) -> None:
        if index == 0 and refine and self._keep_ratio is not None:
            keep = kept_spans(self.request.prompt_tokens, self._keep_ratio)
            self._network.down.bytes += REQUEST_BYTES + SPAN_BYTES * len(keep)
            self._later(there, Refined(attempt, 1, True, keep, Guard("passed")))
        self._later(there, CloudTokens(attempt, index, (TOKEN,)))

    def _cloud_ended(self, attempt: int, asked: Asked) -> None:
        reason, job = asked.reason, asked.job
        there = self._network.down.arrival(self.world.loop.now, TOKEN_BYTES)
        self._open = False
        if reason == "rejected":
            self._later(there, CloudRefused(attempt, "no instance has room", None))
        elif reason is not None:
            self._later(there, CloudFinished(attempt, reason, 1000 * (job.prefill_seconds + job.decode_seconds)))
        self._settle()

    def _later(self, there: float, event: Input) -> None:
        def come() -> None:
            self._heard_so_far.append((there, event))
            self._sim.feed(event)

        self.world.loop.at(there, come)

    # --- how it went ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """After each input of an outline: whether pacing matters from now on, or the device leads, so that nothing more
        will be asked of the cloud."""
        machine: Outline = self._sim.machine  # type: ignore[assignment]
        if not machine.look(self.world.loop.now, self._sim.pass_ends):
            self._play()
        elif machine.output.pieces and machine.output.pieces[-1].source is Source.DEVICE:
            self._settled = True
            self._sim.abandon()
            self._settle()

    def _play(self) -> None:
        """With its pacing from the beginning up to now; the passes take as long as they took."""
        outline, now = self._sim, self.world.loop.now
        outline.abandon()
        past = _Past(self._heard_so_far)
        self._sim = Simulation(
            self._machine(GenerationMachine),
            self.world.device(self.index, self.request.output_tokens),
            past,
            loop=EventLoop(self.request.arrival),
            ended=self._done,
        )
        self._sim.start()
        self._sim.loop.run_to(now)
        self._sim.loop.move_to(self.world.loop)
        self._sim.loop, self._sim.cloud = self.world.loop, self
        self._live = True
        said = len(self._said)
        if [command for _, command in past.said[:said]] != self._said or any(at < now for at, _ in past.said[said:]):
            raise RuntimeError(f"answer {self.index}: its outline told the cloud something else than the answer does")
        for _, command in past.said[said:]:
            if isinstance(command, ExtendCloud):
                self.extend(command)
            elif isinstance(command, StopCloud):
                self.stop(command)

    def _done(self, done: Done) -> None:
        self._settled = True
        self._settle()

    def _settle(self) -> None:
        if not self._settled or self._open or self._recorded:
            return
        self._recorded = True
        machine, request = self._sim.machine, self.request
        outcome = Outcome(request.arrival, request.prompt_tokens, request.output_tokens)
        for asked in self._asked:
            asked.add_to(outcome)
        outcome.bytes_up, outcome.bytes_down = self._network.up.bytes, self._network.down.bytes
        arrivals = machine.showing.arrivals
        outcome.failed = float(not arrivals or machine.finish_reason == "failed")
        if arrivals:
            outcome.ttft = arrivals[0] - request.arrival  # the first token is shown at once
        # An outline that had to be played was so because it was in trouble: its gaps would count for too many.
        if machine.showing.releases and self._sampled:
            outcome.shown(np.asarray(machine.showing.releases), self.world.setup.pace)
        outcome.live = float(self._live)
        for began, ended, step in self._sim.passes:
            if len(step.tokens) == 1 and step.sample_at is not None:
                outcome.device_decode_seconds += ended - began
            else:
                outcome.device_prefill_seconds += ended - began
        if machine.finish_reason is None:
            left = request.output_tokens - len(machine.output) + 1
            outcome.device_decode_seconds += left * self.world.device_times.tpot(request.prompt_tokens)
        if self.world.tracer is not None and self.world.traces(self.index):
            self.world.tracer.split(request, self._sim)
        self.world.record(self.index, request, outcome, [asked.job for asked in self._asked])


@dataclass(slots=True)
class _Outlined(Simulation):
    """Hands the cloud's tokens over together, before whatever comes next: on their own they make an outline do nothing,
    as its device is busy all the time."""

    _tokens: list[int] = field(default_factory=list)
    _attempt: int = 0
    _came: float = 0.0

    def feed(self, event: Input) -> None:
        if self._abandoned:
            return
        if isinstance(event, CloudTokens) and event.first > 0:
            self._tokens.append(event.first)
            self._attempt, self._came = event.attempt, self.loop.now
            return
        if self._tokens:
            tokens = CloudTokens(self._attempt, self._tokens[0], (TOKEN,) * len(self._tokens))
            self._tokens.clear()
            if self.machine.handle(tokens, self._came):
                raise RuntimeError("tokens of the cloud made an outline do something")
        Simulation.feed(self, event)  # a class with slots has no `super()` of its own


class _Past:
    """What an answer heard of the cloud up to now, as a `CloudSide`; remembers what is said to it, and when."""

    def __init__(self, heard: Sequence[tuple[float, Input]]) -> None:
        self._heard = heard
        self._loop = EventLoop()
        self.said: list[tuple[float, AskCloud | ExtendCloud | StopCloud]] = []

    def begin(self, loop: EventLoop, feed: Callable[[Input], None]) -> None:
        self._loop = loop
        for there, event in self._heard:
            loop.at(there, partial(feed, event))

    def ask(self, command: AskCloud) -> None:
        self.said.append((self._loop.now, command))

    def extend(self, command: ExtendCloud) -> None:
        self.said.append((self._loop.now, command))

    def stop(self, command: StopCloud) -> None:
        self.said.append((self._loop.now, command))


def believed_cloud(setup: Setup, prompt: int, *, refines: bool) -> CloudForecast:
    """What an SDK that has asked this cloud before believes of it: the times of an idle one."""
    link, hardware = setup.link, setup.cloud.hardware
    upload = 8 * (REQUEST_BYTES + PROMPT_TOKEN_BYTES * prompt) / (1000 * link.up_kbps) if link.up_kbps else 0.0
    ttft = link.rtt_ms / 1000 + upload + hardware.prompt_ms(prompt) / 1000
    forecast = CloudForecast(ttft=ttft, tpot=hardware.pass_ms([(prompt, 1)]) / 1000, round_trip=link.rtt_ms / 1000)
    if refines:
        forecast.observe_refinement(ttft, first_token=ttft)
    return forecast


def kept_spans(prompt: int, keep_ratio: float) -> Spans:
    """A refinement's spans: of each unit but those of the question, the kept share; which ones changes no time."""
    keep = round(UNIT * keep_ratio)
    body = max(0, prompt - QUESTION)
    if keep >= UNIT or body == 0:
        return ((0, prompt),)
    spans = [(start, min(start + keep, body)) for start in range(0, body, UNIT)] if keep else []
    return (*spans, (body, prompt))
