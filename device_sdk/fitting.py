"""Prompts longer than the device's context: how much of one the device reads before the cloud says what. Pure."""

from __future__ import annotations

import math

from device_sdk.generation.plan import Fit

#: Of the room for a prompt, the share that a refinement is asked to fill at most. The rest is what the device reads
#: meanwhile, as it does not wait; protected spans may need some of it.
REFINED_SHARE = 0.75


def fit(prompt_tokens: int, room: int, keep_ratio: float) -> tuple[float, Fit]:
    """The keep ratio to ask for, `keep_ratio` at most, and the limits, for `room` tokens of a longer prompt.

    >>> fit(12_000, 4_000, 0.5)
    (0.25, Fit(room=4000, read_ahead=1000))
    """
    ratio = min(keep_ratio, REFINED_SHARE * room / prompt_tokens)
    return ratio, Fit(room, room - math.ceil(ratio * prompt_tokens))
