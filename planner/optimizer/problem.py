"""What is asked of the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from planner.core import Route, Slo
from planner.cost import Decision, Forecast, World, forecast
from planner.errors import PlannerError


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised, as a sum of weights × figures per request."""

    name: str
    #: Per engine second of the cloud, per unit of its cost, per joule of the device.
    seconds: float = 0.0
    cost: float = 0.0
    energy: float = 0.0

    @classmethod
    def named(cls, name: str) -> Objective:
        """`cloud-seconds`, `cloud-cost`, `device-energy`, or weights as `weighted:seconds=1,cost=0,energy=0.01`.
        Raises PlannerError."""
        plain = {"cloud-seconds": "seconds", "cloud-cost": "cost", "device-energy": "energy"}
        if name in plain:
            return cls(name, **{plain[name]: 1.0})
        kind, _, rest = name.partition(":")
        try:
            weights = {key: float(value) for key, value in (part.split("=") for part in rest.split(","))}
            if kind == "weighted" and weights.keys() <= {"seconds", "cost", "energy"} and min(weights.values()) >= 0:
                return cls(name, **weights)
        except ValueError:
            pass
        raise PlannerError(
            f"no objective {name!r}; expected {', '.join(plain)} or weighted:seconds=A,cost=B,energy=C, none below 0"
        )

    def check(self, world: World) -> None:
        """Raises PlannerError where a profile does not say what it takes."""
        if self.cost and world.cloud.price_per_hour is None:
            raise PlannerError("the objective needs the price of the cloud; give --price-per-hour")
        if self.energy and (world.device.prefill_watts is None or world.device.decode_watts is None):
            raise PlannerError(
                f"the objective needs the device's draw, which the profile {world.device.name} does not say; "
                "give --device-watts PREFILL,DECODE"
            )

    def value(self, world: World, seen: Forecast) -> float:
        price = (world.cloud.price_per_hour or 0.0) / 3600
        return (self.seconds + self.cost * price) * seen.cloud_seconds + self.energy * (seen.energy or 0.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """What every bucket has to keep, and all of them together."""

    slo: Slo = field(default_factory=Slo)
    max_grant: int = 256
    #: Seconds per token: the slowest pace that may be preferred.
    max_pace: float = 0.080
    #: Share of the cloud's engine time, and of its places, that may be used.
    capacity: float = 0.8

    def __post_init__(self) -> None:
        for name, value, good in (
            ("max_grant", self.max_grant, self.max_grant >= 0),
            ("max_pace", self.max_pace, 0 < self.max_pace <= 10),
            ("capacity", self.capacity, 0 < self.capacity < 1),
        ):
            if not good:
                raise PlannerError(f"{name} is {value!r}, which no plan can keep")


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests of one bucket."""

    up_to: int | None
    #: Of all requests; 0 where none of the workload's fell here.
    share: float
    prompt: int
    longest_prompt: int
    longest_output: int
    #: Output lengths that stand for equal shares of its requests.
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One optimization. `rate` in requests per second; grids say what may be chosen from."""

    world: World
    traffic: tuple[Traffic, ...]
    rate: float
    limits: Limits = field(default_factory=Limits)
    objective: Objective = field(default_factory=lambda: Objective.named("cloud-seconds"))
    routes: tuple[Route, ...] = (Route.DEVICE, Route.SPLIT, Route.CLOUD)
    keep_ratios: tuple[float | None, ...] = (None,)
    chunks: tuple[int, ...] = (128, 256, 512, 1024)

    def under(self, world: World) -> Problem:
        return replace(self, world=world)

    @property
    def slowest_pace(self) -> float:
        """Slower is cheaper, as the same grant lasts longer; the gaps may not exceed what was promised."""
        return min(self.limits.max_pace, self.limits.slo.max_gap_p99 or self.limits.max_pace)


@dataclass(frozen=True, slots=True)
class Option:
    """One decision for one bucket, judged."""

    decision: Decision
    #: Of a request, averaged over the bucket.
    value: float
    mean: Forecast
    #: Of the bucket's longest prompt: what has to keep the limits.
    worst: Forecast
    #: Resource → seconds of one request.
    uses: tuple[float, ...]
    #: Limit → by which factor it is missed.
    misses: dict[str, float] = field(default_factory=dict)


def misses(limits: Limits, worst: Forecast, quality: float, decision: Decision) -> dict[str, float]:
    """Limit → figure ÷ limit, for those that are not kept."""
    slo = limits.slo
    found: dict[str, float] = {}
    if slo.ttft_p95 is not None and worst.ttft_p95 > slo.ttft_p95:
        found["ttft_p95"] = worst.ttft_p95 / slo.ttft_p95
    if slo.max_gap_p99 is not None and worst.max_gap_p99 > slo.max_gap_p99 * (1 + 1e-9):
        found["max_gap_p99"] = worst.max_gap_p99 / slo.max_gap_p99
    if slo.quality is not None and quality < slo.quality - 1e-12:
        found["quality"] = slo.quality / quality if quality else float("inf")
    if decision.grant > limits.max_grant:
        found["max_grant"] = decision.grant / max(1, limits.max_grant)
    return found


def judge(problem: Problem, traffic: Traffic, decision: Decision) -> Option:
    """`decision` for the bucket `traffic`."""
    world = problem.world
    seen = [forecast(world, decision, traffic.prompt, output) for output in traffic.outputs]
    worst = forecast(world, decision, traffic.longest_prompt, traffic.longest_output)
    mean = _average(seen)
    prefill = 0.0 if decision.route is Route.DEVICE else world.cloud_prefill(traffic.prompt)
    decode = mean.cloud_seconds - prefill
    apart = world.cloud.prefill_instances
    uses = (prefill, decode, mean.place_seconds) if apart else (prefill + decode, mean.place_seconds)
    return Option(
        decision,
        problem.objective.value(world, mean),
        mean,
        worst,
        uses,
        misses(problem.limits, worst, worst.quality, decision),
    )


def capacities(problem: Problem) -> tuple[tuple[str, float], ...]:
    """(resource, seconds per second that may be used), in the order of `Option.uses`."""
    cloud, share = problem.world.cloud, problem.limits.capacity
    decoders = cloud.instances - cloud.prefill_instances
    places = ("places", share * decoders * cloud.max_sequences)
    if cloud.prefill_instances:
        return ("prefill", share * cloud.prefill_instances), ("decode", share * decoders), places
    return ("engine", share * cloud.instances), places


def _average(seen: list[Forecast]) -> Forecast:
    """What answers of different lengths cost on average; how the last one feels."""

    def of(figure: Callable[[Forecast], float]) -> float:
        return sum(map(figure, seen)) / len(seen)

    return replace(
        seen[-1],
        cloud_seconds=of(lambda one: one.cloud_seconds),
        cloud_tokens=of(lambda one: one.cloud_tokens),
        place_seconds=of(lambda one: one.place_seconds),
        device_seconds=of(lambda one: one.device_seconds),
        bytes_down=of(lambda one: one.bytes_down),
        energy=None if seen[0].energy is None else of(lambda one: one.energy or 0.0),
    )
