"""What becomes of a conversation that is longer than the device's context. Pure."""

from __future__ import annotations

import bisect
import enum
from collections.abc import Callable

#: What is left after dropping turns, as a share of the room: each drop has the device read all that is left again, so
#: it makes room for more than one turn.
DROP_TO = 0.75


class Overflow(enum.Enum):
    """What to do where prompt and answer do not fit the device's context. Whatever it is, it is never silent."""

    #: PromptTooLongError, before anything is started.
    ERROR = "error"
    #: The cloud reads all and says which part of it the device reads. NoRefinementError where nobody can say.
    REFINE = "refine"
    #: The oldest turns leave the prompt (never the system text or the newest question), with a Notice.
    DROP_OLDEST = "drop_oldest"


def turns_to_drop(length: Callable[[int], int], dropped: int, turns: int, room: int) -> int | None:
    """How many of the oldest of `turns` turns have to be left out, at least the `dropped` that are out already; None
    where even the newest question alone does not fit.

    `length(n)` is the prompt's length in tokens without the oldest n turns; it falls with n. `room` is the most that
    fits.
    """
    if length(dropped) <= room:
        return dropped
    choices = range(dropped, turns + 1)
    for limit in (int(DROP_TO * room), room):
        # Lengths fall, so their negatives rise.
        found = bisect.bisect_left(choices, -limit, key=lambda n: -length(n))
        if found < len(choices):
            return choices[found]
    return None
