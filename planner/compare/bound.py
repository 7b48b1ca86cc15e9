"""The most requests per second that a cloud could serve, whatever the policy's scheduling: the bottleneck law.

A resource with capacity C (seconds per second) of which each request needs D on average serves C/D requests per second
at most (Denning and Buzen, 1978). D is what the policy's answers needed at the fullest batch, where a token is
cheapest: no arrival process, no SLO and no queue can do better. The bound is of the cloud alone; every user has a
device, so it is never a bottleneck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planner.core import CloudProfile
    from planner.simulator.outcome import Outcomes

UNBOUNDED = float("inf")


@dataclass(frozen=True, slots=True)
class Bound:
    """`rps` is infinite where the cloud does nothing."""

    rps: float
    #: What runs out first.
    resource: str


def bound(outcomes: Outcomes, cloud: CloudProfile) -> Bound:
    """From what each answer that was admitted asked of the cloud."""
    admitted = outcomes.column("rejected") == 0
    tokens, prompts, cached = (
        outcomes.column(name)[admitted] for name in ("cloud_tokens", "prompt_tokens", "cached_tokens")
    )
    used = outcomes.column("cloud_seconds")[admitted] > 0
    if not used.any():
        return Bound(UNBOUNDED, "none")
    prefill = float((_prompt_seconds(prompts[used], cloud) - _prompt_seconds(cached[used], cloud)).sum()) / len(tokens)
    more = np.maximum(tokens - 1, 0.0)
    decode = float(more.sum()) / len(tokens)
    if decode:
        context = round(float(np.average(prompts, weights=more)))
        places = cloud.max_sequences
        # An instance decodes a token for each of its places in one pass.
        decode *= cloud.hardware.pass_ms([(context, 1)] * places) / 1000 / places
    if not cloud.prefill_instances:
        return Bound(cloud.instances / (prefill + decode), "engine time")
    decoding = (cloud.instances - cloud.prefill_instances) / decode if decode else UNBOUNDED
    prefilling = cloud.prefill_instances / prefill if prefill else UNBOUNDED
    return Bound(min(prefilling, decoding), "decode places" if decoding < prefilling else "prefill time")


def _prompt_seconds(prompts: NDArray[np.float64], cloud: CloudProfile) -> NDArray[np.float64]:
    unique, inverse = np.unique(prompts, return_inverse=True)
    seconds = np.array([cloud.hardware.prompt_ms(int(prompt)) / 1000 if prompt else 0.0 for prompt in unique])
    result: NDArray[np.float64] = seconds[inverse]
    return result
