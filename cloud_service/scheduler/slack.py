"""When a generation's next token is needed: a first one by its deadline, a later one before the device that shows the
answer has none left. Pure: times are passed in, in seconds on the scheduler's clock."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Targets:
    """What is assumed of a client that does not say more."""

    #: A first token is wanted so long after arrival, beside what its own prefill takes. Ordering only: nothing is
    #: refused for it.
    first_token: float = 1.0
    #: Tokens are shown this far apart: 20 a second, about twice as fast as people read.
    pace: float = 0.05
    #: No buffer is so full that its generation waits longer than this for a token.
    patience: float = 2.0


DEFAULT_TARGETS = Targets()


@dataclass(frozen=True, slots=True)
class Report:
    """What a device said in a `progress`."""

    at: float
    #: Output tokens of this job that it had shown.
    shown: int
    #: Between two tokens; 0 where it shows each at once.
    pace: float
    #: When it expects to need no more of them; None where it cannot tell.
    ready_at: float | None = None


def first_token_needed(arrived: float, prefill: float, deadline: float | None, targets: Targets) -> float:
    """The first token of a job that arrived then and whose prefill takes so long: a short prompt does not wait for a
    long one that came just before."""
    needed = arrived + prefill + targets.first_token
    return needed if deadline is None else min(needed, deadline)


def next_token_needed(given: int, first_at: float, last_at: float, report: Report | None, targets: Targets) -> float:
    """The token after `given` ones, the first and the last of which were made at these times."""
    if report is None:
        dry_at = first_at + given * targets.pace
    else:
        # A device cannot have shown what it was never sent, whatever it says.
        in_hand = max(0, given - report.shown)
        dry_at = max(report.at, last_at if report.pace == 0 else 0.0) + in_hand * report.pace
        if report.ready_at is not None and dry_at >= report.ready_at:
            dry_at = math.inf
    return min(dry_at, last_at + targets.patience)
