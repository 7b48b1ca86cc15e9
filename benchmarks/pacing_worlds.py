"""Virtual worlds for `pacing.py`: a cloud, a link and a device as the speed controller sees them, in virtual time.

The forecasts that the controller hears are those of an SDK: from a profile that is off by some factor, corrected as
passes end, with the real `DeviceForecast` and `CloudForecast`. The world answers to what the controller asks for.
"""

from __future__ import annotations

import bisect
import heapq
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from speed_controller import CloudForecast, DeviceForecast, PaceSettings, SpeedController

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Link:
    """One way takes half a round trip, an exponential jitter, and at `stalls` per second a pause of that range."""

    round_trip: float
    jitter: float = 0.0
    stalls: float = 0.0
    stall: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Cloud:
    """`spread` is the relative spread of a step; `pauses` of that range come at `pause_rate` per token."""

    ttft: float
    tpot: float
    grant: int
    spread: float = 0.1
    pause_rate: float = 0.0
    pause: tuple[float, float] = (0.0, 0.0)
    #: Nothing arrives after this; the device hears of it `lost_known` seconds later.
    lost_at: float | None = None
    lost_known: float = 0.0
    #: Whether more grant can be had.
    extends: bool = True


@dataclass(frozen=True, slots=True)
class Device:
    """Times of a pass are scaled by `slow` (from, until, factor) and by (1 + growth · position / 4096)."""

    prompt: int
    prefill_rate: float
    tpot: float
    chunk: int = 256
    spread: float = 0.03
    growth: float = 0.15
    slow: tuple[tuple[float, float, float], ...] = ()
    hiccup_rate: float = 0.0
    hiccup: tuple[float, float] = (0.0, 0.0)
    #: What the profile says of the rate and of the TPOT, relative to the truth.
    rate_error: float = 1.0
    tpot_error: float = 1.0


@dataclass(frozen=True, slots=True)
class World:
    """One answer of `length` tokens; a missing cloud or device never supplies anything."""

    family: str
    length: int
    seed: int
    link: Link = Link(0.04)
    cloud: Cloud | None = None
    device: Device | None = None


@dataclass(slots=True)
class Run:
    """Times in seconds from the request."""

    arrivals: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    cloud_tokens: int = 0
    extended: int = 0
    #: When something began that nothing before it announced: a pause, a stall, a hiccup, a loss, a slowdown.
    faults: list[float] = field(default_factory=list)


class Simulation:
    """Drives a SpeedController through a world the way the SDK does; the world answers to its extensions."""

    def __init__(self, world: World, settings: PaceSettings) -> None:
        self.world, self.run = world, Run()
        self.controller = SpeedController(settings, submitted=0.0)
        self.link_rng, self.cloud_rng, self.device_rng = (
            random.Random(f"{world.seed}/{part}") for part in ("link", "cloud", "device")
        )
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = 0
        device, cloud = world.device, world.cloud
        self.device_forecast = DeviceForecast()
        if device:
            self.device_forecast = DeviceForecast(
                prefill_rate=device.prefill_rate * device.rate_error, tpot=device.tpot * device.tpot_error
            )
        self.cloud_forecast = CloudForecast(round_trip=world.link.round_trip)
        self.cloud_alive = cloud is not None
        self.to_send = cloud.grant if cloud else 0  # the cloud's side of the grant
        self.remaining = self.to_send  # the device's side of it
        self.sending = False
        self.sent_at = cloud.ttft - world.link.round_trip if cloud else 0.0
        self.link_free = 0.0
        self.position, self.in_pass = 0, 0
        self.pass_start = self.pass_seconds = 0.0
        self.took_over: float | None = None
        self.slowed: set[float] = set()

    def at(self, time: float, event: Callable[[float], None]) -> None:
        self.order += 1
        heapq.heappush(self.events, (time, self.order, event))

    def simulate(self) -> Run:
        world = self.world
        if world.device:
            self.start_pass(0.0)
        if world.cloud:
            self.send(world.link.round_trip / 2)
            if world.cloud.lost_at is not None:
                self.at(world.cloud.lost_at + world.cloud.lost_known, self.on_known)
        self.tell(0.0)
        while self.events or self.controller.buffered:
            due = self.controller.next_due()
            if due is None or (self.events and self.events[0][0] <= due):
                now, _, event = heapq.heappop(self.events)
                event(now)
            else:
                now = due
            if count := self.controller.due(now):
                self.run.shown += [now] * count
                self.tell(now)
            extra = self.controller.extension(now)
            if extra and self.cloud_alive and self.took_over is None:
                self.run.extended += extra
                self.remaining += extra
                self.at(now + world.link.round_trip / 2, partial(self.on_extend, extra=extra))
                self.tell(now)
        return self.run

    # --- the cloud -----------------------------------------------------------------------------------------------

    def send(self, now: float) -> None:
        """Start the cloud's next token, if it has grant for one."""
        cloud, rng = self.world.cloud, self.cloud_rng
        self.sending = self.to_send > 0
        if not self.sending:
            return
        self.to_send -= 1
        if self.sent_at > now:  # the first one
            ready = self.sent_at
        else:
            ready = now + cloud.tpot * rng.lognormvariate(0, cloud.spread)
            if rng.random() < cloud.pause_rate:
                self.run.faults.append(ready)
                ready += rng.uniform(*cloud.pause)
        self.at(ready, self.on_sent)

    def on_sent(self, now: float) -> None:
        link, rng = self.world.link, self.link_rng
        delay = link.round_trip / 2 + (rng.expovariate(1 / link.jitter) if link.jitter else 0.0)
        if rng.random() < link.stalls * self.world.cloud.tpot:
            self.run.faults.append(now + delay)
            delay += rng.uniform(*link.stall)
        self.link_free = max(self.link_free, now + delay)  # in order, so a late one holds back the next
        if self.world.cloud.lost_at is None or self.link_free < self.world.cloud.lost_at:
            self.at(self.link_free, self.on_received)
        self.send(now)

    def on_extend(self, now: float, extra: int) -> None:
        if self.world.cloud.extends:
            self.to_send += extra
            if not self.sending:
                self.send(now)
        else:
            self.at(now + self.world.link.round_trip / 2, self.on_known)

    def on_received(self, now: float) -> None:
        if self.took_over is not None or len(self.run.arrivals) >= self.world.length:
            return
        if self.remaining == self.world.cloud.grant:
            self.cloud_forecast.observe_first_token(now)
        self.cloud_forecast.observe_arrival(now)
        self.remaining -= 1
        self.run.cloud_tokens += 1
        self.arrive(now)

    def on_known(self, now: float) -> None:
        if self.took_over is None and self.cloud_alive:
            self.run.faults.append(now)
        self.cloud_alive, self.remaining = False, 0
        self.tell(now)

    # --- the device ----------------------------------------------------------------------------------------------

    def start_pass(self, now: float) -> None:
        """Prefill the next chunk of prompt and received tokens, or decode one token when none is left."""
        device, rng = self.world.device, self.device_rng
        have = device.prompt + len(self.run.arrivals) - self.position
        self.in_pass = min(device.chunk, have)
        # A pass over few tokens is bound by reading the weights, as a decode step is.
        seconds = max(self.in_pass / device.prefill_rate, device.tpot)
        seconds *= 1 + device.growth * self.position / 4096
        seconds *= rng.lognormvariate(0, device.spread)
        usual = seconds
        for since, until, factor in device.slow:
            seconds *= factor if since <= now < until else 1.0
            self.run.faults += [now + usual] if since <= now and since not in self.slowed else []
            if since <= now:
                self.slowed.add(since)
        if rng.random() < device.hiccup_rate:
            self.run.faults.append(now + seconds)
            seconds += rng.uniform(*device.hiccup)
        self.pass_seconds, self.pass_start = seconds, now
        self.at(now + seconds, self.on_passed)

    def on_passed(self, now: float) -> None:
        device = self.world.device
        if len(self.run.arrivals) >= self.world.length:
            return
        if self.took_over is None:
            self.device_forecast.observe_prefill(self.in_pass, self.pass_seconds)
        else:
            self.device_forecast.observe_decode(self.pass_seconds)
        self.position += self.in_pass
        if self.position == device.prompt + len(self.run.arrivals):
            if self.took_over is None:
                self.took_over, self.remaining = now, 0
            self.arrive(now)
            self.start_pass(now)
        else:
            self.start_pass(now)
            self.tell(now)

    # --- what the controller hears ---------------------------------------------------------------------------------

    def arrive(self, now: float) -> None:
        self.run.arrivals.append(now)
        self.controller.arrived(now)
        self.tell(now)
        if len(self.run.arrivals) >= self.world.length:
            self.controller.finished(now)
            self.events.clear()

    def tell(self, now: float) -> None:
        if self.world.device:
            ready = self.took_over
            if ready is None:
                left = self.world.device.prompt + len(self.run.arrivals) - self.position
                wait = self.device_forecast.first_token_in(
                    left + self.remaining, running=self.in_pass, elapsed=now - self.pass_start
                )
                ready = None if wait is None else now + wait
            self.controller.expect_device(now, ready, self.device_forecast.tpot)
        if self.world.cloud:
            alive = self.cloud_alive and self.took_over is None
            self.controller.cloud_state(
                now,
                remaining=self.remaining if alive else 0,
                tpot=self.cloud_forecast.tpot if alive else None,
                round_trip=self.cloud_forecast.round_trip or 0.0,
            )


def replay(arrivals: list[float], settings: PaceSettings) -> list[float]:
    """Shows the same arrivals without any forecast: for the modes that use none."""
    controller, shown, waiting = SpeedController(settings, submitted=0.0), [], list(reversed(arrivals))
    while waiting or controller.buffered:
        due = controller.next_due()
        if waiting and (due is None or waiting[-1] <= due):
            now = waiting.pop()
            controller.arrived(now)
            if not waiting:
                controller.finished(now)
        else:
            now = due if due is not None else waiting[-1]
        shown += [now] * controller.due(now)
    return shown


def informed_gap(arrivals: list[float], faults: list[float], pace: float) -> float:
    """The largest gap of a schedule that knows every arrival until the next fault, and of a fault once it begins.

    Never faster than `pace`, and never faster again: what came before a fault cannot be shown differently after it.
    Without a fault this is the clairvoyant gap."""
    shown, last = 0, arrivals[0]
    moments = sorted({last, *(fault for fault in faults if last < fault < arrivals[-1])})
    for begin, end in zip(moments, [*moments[1:], float("inf")], strict=True):
        while shown + 1 < len(arrivals) and max(last + pace, arrivals[shown + 1]) <= begin:
            last = max(last + pace, arrivals[shown + 1])
            shown += 1
        known = bisect.bisect_left(arrivals, end)  # of the arrivals, those before the next fault
        pace = max(
            [pace, *((arrivals[i] - last) / (i - shown) for i in range(shown + 1, min(known + 1, len(arrivals))))]
        )
    return pace
