"""Prompts longer than the device's context: how much of one the device reads before the cloud says what. Pure."""

from __future__ import annotations

import math

from device_sdk.generation.plan import Fit
from device_sdk.generation.spans import Spans

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


def reading_alike(fit: Fit, protected: Spans) -> Fit:
    """The same, where the cloud answers from what it keeps: the device reads nothing ahead but the protected beginning,
    so that both go on from the same prompt.

    >>> reading_alike(Fit(room=4000, read_ahead=1000), ((0, 4), (9_000, 9_020)))
    Fit(room=4000, read_ahead=4)
    """
    beginning = protected[0][1] if protected and protected[0][0] == 0 else 0
    return Fit(fit.room, min(fit.read_ahead, beginning))
