"""What refinement buys: when the device is ready, the grant it takes, how long the cloud is busy. EMULATED hardware.

Every row plays the shipping state machine in virtual time (`device_sdk.testing.simulation`) on published profiles of a
phone, a datacentre GPU and 5G, with refinement and without; `closed` is the formula of docs/metrics.md, "The grant", on
the same profiles. No model runs: that what is kept suffices for the answer is the other tables' question.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES, Patience, RefineWish, Request
from device_sdk.settings import Mode
from device_sdk.testing.simulated_cloud import SimulatedCloud, SimulatedRefinement
from device_sdk.testing.simulation import Simulation
from model_runtime.profiles import load_link, load_profile
from model_runtime.testing import ScriptedTokenizer
from speed_controller import PaceSettings, SplitSettings, grant_needed
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import refined_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from device_sdk.generation.commands import Step
    from device_sdk.testing.simulation import NextToken
    from model_runtime.profiles import HardwareProfile, LinkProfile

DEVICE, CLOUD, LINK = "phone-snapdragon-8-elite", "datacentre-a100-pcie", "5g"
LENGTHS = (1_000, 2_000, 3_000, 4_000)
#: A report's, about.
ANSWER_TOKENS = 150
PACE = 0.05
#: The grant needed with refinement ÷ without, at most, from this length on, at the ratio that is the default.
AIM, AIM_FROM, AIM_RATIO = 0.5, 2_000, 0.25
#: The largest grant that is tried, and what of a gap above the pace is rounding.
_MOST, _TOLERANCE = 128, 0.001
#: Tokens that are protected at the prompt's two ends: template, question.
_ENDS = (4, 20)
_FIRST_PROMPT_TOKEN = 100_000


@dataclass(frozen=True, slots=True)
class Side:
    #: Seconds until the device has read what it reads of the prompt.
    ready: float
    #: Tokens that the cloud made, by the shipping choice of grant.
    used: int
    #: The least grant with which the first token is the cloud's and no gap is above the pace, extensions forbidden.
    #: None where no grant up to `_MOST` is enough.
    needed: int | None
    #: The same by the formula.
    closed: int
    largest_gap: float
    #: Seconds of the cloud's engine: prefill, and a decode pass a token.
    cloud_busy: float
    #: Share of the prompt that the device read.
    kept: float


@dataclass(frozen=True, slots=True)
class Effect:
    length: int
    ratio: float
    without: Side
    refined: Side

    @property
    def reached(self) -> bool | None:
        """None where the aim does not reach so far."""
        if self.length < AIM_FROM or self.ratio != AIM_RATIO:
            return None
        a, b = self.without.needed, self.refined.needed
        return b is not None and (a is None or b <= AIM * a)

    def line(self) -> str:
        a, b = self.without, self.refined
        verdict = {None: "", True: "reached", False: "MISSED"}[self.reached]
        return (
            f"{self.length:6} {self.ratio:6.2f} {b.kept:6.0%} | {1000 * a.ready:6.0f} → {1000 * b.ready:5.0f} | "
            f"{_count(a.needed):>4} → {_count(b.needed):>4} | {a.closed:4} → {b.closed:3} | {a.used:4} → {b.used:3} | "
            f"{1000 * a.largest_gap:5.0f} → {1000 * b.largest_gap:4.0f} | "
            f"{1000 * a.cloud_busy:6.0f} → {1000 * b.cloud_busy:5.0f} | {verdict}"
        )


def _count(grant: int | None) -> str:
    return f"{_MOST}+" if grant is None else str(grant)


HEAD = (
    "tokens  ratio   read | device ready ms | grant needed | closed form | grant used | largest gap ms | cloud busy ms"
    f" | needed ≤ {AIM:.0%}"
)


def measure(lengths: Sequence[int], ratios: Sequence[float]) -> Iterator[Effect]:
    world = _World(load_profile(DEVICE), load_profile(CLOUD), load_link(LINK))
    for length in lengths:
        without = _side(length, None, world)
        for ratio in ratios:
            yield Effect(length, ratio, without, _side(length, ratio, world))


@dataclass(slots=True)
class _ProfiledDevice:
    profile: HardwareProfile
    next_token: NextToken

    def seconds(self, step: Step) -> float | None:
        return self.profile.pass_ms([(step.keep, len(step.tokens))]) / 1000


def _answer(output: Sequence[int]) -> int | None:
    return 97 + len(output) % 26 if len(output) < ANSWER_TOKENS else None


def _side(length: int, ratio: float | None, world: _World) -> Side:
    known = CloudForecast(round_trip=2 * world.one_way)
    rate = world.prefill_rate(length)
    forecast = DeviceForecast(prefill_rate=rate, tpot=world.device_tpot)

    def play(split: SplitSettings) -> tuple[Simulation, SimulatedCloud, float]:
        cloud = world.cloud_for(length, ratio)
        prompt = range(_FIRST_PROMPT_TOKEN, _FIRST_PROMPT_TOKEN + length)
        wish = None if ratio is None else RefineWish(ratio, ((0, _ENDS[0]), (length - _ENDS[1], length)))
        machine = GenerationMachine(
            Request(prompt, ANSWER_TOKENS + 1, refine=wish),
            SIDES[Mode.SPLIT],
            split,
            ScriptedTokenizer(),
            forecast,
            known,
            Patience(),
        )
        played = Simulation(machine, _ProfiledDevice(world.device, _answer), cloud).run()
        releases = machine.showing.releases
        return played, cloud, max(after - before for before, after in pairwise(releases))

    pace = PaceSettings(pace=PACE)
    # Played twice: the first answer teaches how soon cloud and refinement come, as in any session.
    play(SplitSettings(pace=pace))
    played, cloud, gap = play(SplitSettings(pace=pace))
    # Not bisected: a grant more can end in the middle of a pass of the device.
    fixed = (SplitSettings(grant=grant, max_grant=grant, pace=pace) for grant in range(1, _MOST + 1))
    needed = next((split.grant for split in fixed if play(split)[2] <= PACE + _TOLERANCE), None)
    last = _FIRST_PROMPT_TOKEN + length - 1
    return Side(
        ready=next((end for _, end, step in played.passes if last in step.tokens), played.now),
        used=cloud.tokens_made,
        needed=needed,
        closed=world.closed_form(length, ratio),
        largest_gap=gap,
        cloud_busy=cloud.ttft + cloud.tpot * cloud.tokens_made,
        kept=sum(token >= _FIRST_PROMPT_TOKEN for token in played.cache) / length,
    )


@dataclass(frozen=True, slots=True)
class _World:
    device: HardwareProfile
    cloud: HardwareProfile
    link: LinkProfile

    @property
    def one_way(self) -> float:
        return self.link.rtt_ms / 2000

    @property
    def device_tpot(self) -> float:
        return self.device.pass_ms([(self.device.prefill_block, 1)]) / 1000

    def prefill_rate(self, length: int) -> float:
        return 1000 * length / self.device.prompt_ms(length)

    def cloud_for(self, length: int, ratio: float | None) -> SimulatedCloud:
        """The refinement leaves as the prefill ends, with the first token."""
        prefill = self.cloud.prompt_ms(length) / 1000
        refinements = [] if ratio is None else [SimulatedRefinement(prefill, _evenly(length, ratio))]
        tpot = self.cloud.pass_ms([(length, 1)]) / 1000
        return SimulatedCloud(_answer, ttft=prefill, tpot=tpot, link=self.one_way, refinements=refinements)

    def closed_form(self, length: int, ratio: float | None) -> int:
        ttft, rate = self.cloud.prompt_ms(length) / 1000 + 2 * self.one_way, self.prefill_rate(length)
        read = length
        if ratio is not None:
            read = refined_length(length, keep_ratio=ratio, arrival=ttft, prefill_rate=rate, least=sum(_ENDS))
        return grant_needed(
            ready_without=read / rate, cloud_ttft=ttft, pace=PACE, prefill_rate=rate, device_tpot=self.device_tpot
        )


def _evenly(length: int, ratio: float) -> tuple[tuple[int, int], ...]:
    """Lines of 25 tokens all over the prompt, with its two ends: `ratio` of it in all."""
    head, tail = _ENDS
    line = 25
    lines = range(head, length - tail - line, line)
    wanted = int((ratio * length - head - tail) / line)
    chosen = [lines[at * len(lines) // wanted] for at in range(wanted)]
    spans = [(0, head), *((start, start + line) for start in chosen), (length - tail, length)]
    return tuple(spans)
