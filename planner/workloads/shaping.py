"""What can be made of a workload without holding it: a part of it, or the same at another rate."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

from planner.core import Request, Workload
from planner.errors import WorkloadError


def sample(workload: Workload, share: float, seed: int = 0) -> Workload:
    """Each request with probability `share`, at its own time: a lower rate, the same pattern."""
    if not 0 < share <= 1:
        raise WorkloadError(f"the share to sample is {share}; above 0 and at most 1 is expected")

    def change(requests: Iterator[Request]) -> Iterator[Request]:
        rng = random.Random(seed)
        return (request for request in requests if rng.random() < share)

    return workload.through(change, f"{share:g} of it sampled, seed {seed}")


def rescale(workload: Workload, factor: float) -> Workload:
    """The same requests, `factor` times as many per second."""
    if not factor > 0:
        raise WorkloadError(f"the factor of the rate is {factor}; above 0 is expected")

    def change(requests: Iterator[Request]) -> Iterator[Request]:
        return (replace(request, arrival=request.arrival / factor) for request in requests)

    return workload.through(change, f"arrivals {factor:g} times as dense")


def window(workload: Workload, start: float, stop: float | None = None) -> Workload:
    """The requests that arrive from `start` until before `stop` seconds, counted from `start` on."""
    if start < 0 or (stop is not None and stop <= start):
        raise WorkloadError(f"the window is {start:g} to {stop} s; 0 or later and an end after it are expected")

    def change(requests: Iterator[Request]) -> Iterator[Request]:
        late = itertools.dropwhile(lambda request: request.arrival < start, requests)
        inside = late if stop is None else itertools.takewhile(lambda request: request.arrival < stop, late)
        return (replace(request, arrival=request.arrival - start) for request in inside)

    return workload.through(change, f"from {start:g} to {'the end' if stop is None else f'{stop:g} s'}")


def first(workload: Workload, count: int) -> Workload:
    """The first `count` requests."""
    if count < 1:
        raise WorkloadError(f"the number of requests is {count}; at least 1 is expected")
    return workload.through(lambda requests: itertools.islice(requests, count), f"the first {count}")
