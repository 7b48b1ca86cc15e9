"""Workloads that nobody recorded: arrivals by a point process, lengths by a distribution, repeatable by their seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from planner.core import Request, Skipped, Workload
from planner.errors import WorkloadError
from planner.workloads.lengths import Lengths

Process = Literal["poisson", "gamma", "diurnal"]
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Generator:
    """Parameters of a generated workload. Raises WorkloadError naming the one that is impossible."""

    process: Process
    #: Mean requests per second.
    rate: float = 1.0
    requests: int = 1000
    prompt: str = "1024~0.8"
    output: str = "200~0.7"
    seed: int = 0
    #: `gamma`: coefficient of variation of the time between arrivals; above 1 they come in bursts.
    cv: float = 3.0
    #: `diurnal`: rate at the peak ÷ mean rate, and the length of a day in seconds.
    peak: float = 1.8
    period: float = 86_400.0

    def __post_init__(self) -> None:
        if self.process not in get_args(Process):
            raise WorkloadError(
                f"no arrival process {self.process!r}; one of {', '.join(get_args(Process))} is expected"
            )
        for name in ("rate", "cv", "period"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise WorkloadError(f"{name} is {value!r}; a number above 0 is expected")
        if not 1 <= self.peak <= 2:
            raise WorkloadError(f"peak is {self.peak!r}; from 1 to 2 times the mean rate is expected")
        if self.requests < 1:
            raise WorkloadError(f"requests is {self.requests}; at least 1 is expected")

    def stream(self) -> Iterator[Request]:
        prompts, outputs = Lengths.parse(self.prompt), Lengths.parse(self.output)
        # One stream of noise for each, so that another rate leaves the lengths as they are.
        noise = [np.random.default_rng((self.seed, lane)) for lane in range(3)]
        now, left = 0.0, self.requests
        while left:
            count = min(_BLOCK, left)
            # Always whole blocks: the first n requests of a longer workload are those of a shorter one.
            arrivals = self._arrivals(noise[0], now)
            lengths = zip(prompts.draw(noise[1], _BLOCK), outputs.draw(noise[2], _BLOCK), strict=True)
            for arrival, (prompt, output) in zip(arrivals[:count].tolist(), lengths, strict=False):
                yield Request(arrival, int(prompt), int(output))
            now = float(arrivals[-1])
            left -= count

    def _arrivals(self, rng: np.random.Generator, now: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        match self.process:
            case "poisson":
                return now + np.cumsum(rng.exponential(1 / self.rate, _BLOCK))
            case "gamma":
                shape = 1 / self.cv**2
                return now + np.cumsum(rng.gamma(shape, 1 / (self.rate * shape), _BLOCK))
            case "diurnal":
                return self._thinned(rng, now)

    def _thinned(self, rng: np.random.Generator, now: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """A Poisson process whose rate swings like a day (Lewis and Shedler's thinning), from its mean upwards."""
        kept: list[float] = []
        while len(kept) < _BLOCK:
            now += float(rng.exponential(1 / (self.rate * self.peak)))
            swing = 1 + (self.peak - 1) * math.sin(2 * math.pi * now / self.period)
            if rng.random() * self.peak < swing:
                kept.append(now)
        return np.array(kept)


def generate(text: str) -> Workload:
    """From `process:key=value,…`, e.g. `gamma:rate=2,cv=3,prompt=1024~0.8,output=50-400,requests=5000,seed=7`.

    Raises WorkloadError naming what is wrong.
    """
    process, _, rest = text.partition(":")
    known = {field.name: field for field in fields(Generator) if field.name != "process"}
    values: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, sign, value = part.partition("=")
        if not sign or key not in known:
            raise WorkloadError(
                f"{part!r} is no parameter of a generator; {', '.join(known)} are expected as key=value"
            )
        try:
            values[key] = {"int": int, "float": float}.get(str(known[key].type), str)(value)
        except ValueError:
            raise WorkloadError(f"{key} is {value!r}; a number is expected") from None
    generator = Generator(process, **values)  # type: ignore[arg-type]
    Lengths.parse(generator.prompt)
    Lengths.parse(generator.output)
    told = ", ".join(f"{field.name}={getattr(generator, field.name)}" for field in fields(Generator))

    def stream(_: Skipped) -> Iterator[Request]:
        return generator.stream()

    return Workload(process, f"generated: {told}", stream)
