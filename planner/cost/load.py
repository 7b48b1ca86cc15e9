"""What the other requests do to one: queues in the cloud at a given load."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.cost.quantity import Quantity


@dataclass(frozen=True, slots=True)
class Load:
    """The cloud in its steady state. All zero: an idle one."""

    #: Share of the time that an instance which prefills spends in passes; below 1.
    prefill: float = 0.0
    #: Sequences that decode at once on an instance that decodes, on average.
    batch: float = 0.0
    #: Share of all places (instances × sequences) that are taken, and for how many seconds each; below 1.
    places: float = 0.0
    hold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prefill", "places"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"Load.{name} is {value:g}; a share of at least 0 and below 1 is expected")


def waits(servers: int, utilization: float) -> float:
    """Probability that a newcomer waits (Erlang's C formula); `utilization` below 1 is of each of `servers`."""
    if utilization <= 0:
        return 0.0
    offered = servers * utilization
    blocked = 1.0  # Erlang B by its stable recursion
    for server in range(1, servers + 1):
        blocked = offered * blocked / (server + offered * blocked)
    return blocked / (1 - utilization * (1 - blocked))


def wait(servers: int, utilization: float, service: float) -> Quantity:
    """Extra time of a job of `service` seconds: none with probability 1 - C, else exponential with mean
    service / (m·(1 - u)). Under processor sharing by one server that is x·u / (1 - u), exactly, on average."""
    probability = waits(servers, utilization)
    if probability == 0:
        return Quantity.fixed(0.0)
    return Quantity.sometimes(probability, service / (servers * (1 - utilization)), varies=True)


def steady(
    *,
    rate: float,
    prefill_seconds: float,
    decode_tokens: float,
    prefillers: int,
    decoders: int,
    sequences: int,
    shared: bool,
    token_seconds: float,
    more_seconds: float,
) -> Load | None:
    """The load under `rate` requests/s of `prefill_seconds` and `decode_tokens` each; None where it is more than the
    cloud can carry.

    A decode pass of b sequences takes `token_seconds` + (b - 1) · `more_seconds`, so b solves b = λ·n·t(b) in closed
    form. `shared`: the same instances prefill and decode; their passes then take turns.
    """
    prefill = rate * prefill_seconds / prefillers
    each = rate * decode_tokens / decoders
    if prefill >= 1:
        return None
    stretch = 1 / (1 - prefill) if shared else 1.0
    slope = each * more_seconds * stretch
    if slope >= 1:
        return None
    batch = each * max(0.0, token_seconds - more_seconds) * stretch / (1 - slope)
    # Below one sequence at once, those that decode are mostly alone: the pass costs `token_seconds`, not less.
    if batch < 1:
        batch = each * token_seconds * stretch
    if batch > sequences:
        return None
    per_token = (token_seconds + max(0.0, batch - 1) * more_seconds) * stretch
    hold = decode_tokens * per_token + (prefill_seconds / (1 - prefill) if shared else 0.0)
    places = rate * hold / (decoders * sequences)
    if places >= 1:
        return None
    return Load(prefill=min(prefill, math.nextafter(1, 0)), batch=batch, places=places, hold=hold)
