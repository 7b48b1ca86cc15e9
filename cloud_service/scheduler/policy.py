"""Which generations take part in the next pass, and with how many tokens. Pure: no clock, no engine, no state.

By slack, under a token budget. First tokens go by their deadline, later ones by when the device that shows them runs
out of tokens (earliest deadline first, which is optimal as long as all can be met: Liu and Layland, JACM 1973).

- Decode tokens that are needed soon go into every pass. A device whose buffer lasts yields its turn to those whose
  does not and to first tokens that would be late, unless its token costs next to nothing.
- A prefill chunk ends before the first of these devices runs dry; yet a share of the budget is always left to prompts,
  a quarter, and half where a first token is about to be late: many answers in progress cannot starve a new one.
- A first token that cannot be in time any more makes way for those that can, for `LATE_GRACE` and no longer.

Nobody starves: a due time stands still while its generation waits, and those of newcomers do not.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: By how much a first token that will be late is put back, in seconds.
LATE_GRACE = 2.0
#: A first token is about to be late where its prefill has no more than this to spare, in seconds.
IN_A_HURRY = 0.2
#: Passes vary: a chunk is to take no more than this share of the time there is for it.
AS_PLANNED = 0.8
#: Tokens that make a pass longer by no more than this share of it ride along.
NEXT_TO_NOTHING = 0.1


# `Work` and `Share` are made for every token: a Struct costs a sixth of a frozen dataclass.
class Work(msgspec.Struct, frozen=True):
    """A generation that has tokens to feed."""

    key: int
    #: Tokens not yet fed: what is left of the prompt, or 1 while decoding.
    pending: int
    decoding: bool
    #: When its next token is needed, in seconds on the caller's clock.
    due: float


_DUE = operator.attrgetter("due", "key")


@dataclass(frozen=True, slots=True)
class Costs:
    """What a pass takes, in seconds; 0 where nothing was measured yet."""

    #: Once for a pass that decodes.
    base_s: float = 0.0
    #: Each generation that decodes in it.
    decode_s: float = 0.0
    #: Each prompt token.
    prefill_s: float = 0.0

    def seconds(self, prefill: int, decode: int) -> float:
        """A pass of so many tokens."""
        return (self.base_s + decode * self.decode_s if decode else 0.0) + prefill * self.prefill_s


@dataclass(frozen=True, slots=True)
class PassBudget:
    """What fits in one pass."""

    #: Tokens of all chunks together.
    tokens: int
    #: Prefill chunks are multiples of this (but for the last of a prompt): the chunk length of an engine that is
    #: compiled to fixed shapes, else 1.
    granularity: int = 1

    def __post_init__(self) -> None:
        if self.granularity < 1 or self.tokens < 2 * self.granularity:
            raise ValueError(
                f"a pass of {self.tokens} tokens cannot hold a decode token beside a prefill chunk of "
                f"{self.granularity}: give it at least {2 * max(1, self.granularity)}"
            )

    @property
    def kept_for_prefill(self) -> int:
        """Tokens that decoding may not take while a prompt waits: a quarter, and at least one chunk."""
        return max(self.granularity, self.tokens // 4)


class Share(msgspec.Struct, frozen=True):
    """`tokens` of generation `key` go into the pass."""

    key: int
    tokens: int


def plan_pass(works: Iterable[Work], budget: PassBudget, costs: Costs, now: float) -> list[Share]:
    """The next pass; empty only where no generation has work. Each generation appears at most once."""
    decodes: list[Work] = []
    prefills: list[Work] = []
    for work in works:
        (decodes if work.decoding else prefills).append(work)
    decodes.sort(key=_DUE)
    prefills.sort(key=lambda work: (first_token_due(work, costs, now), work.key))
    pending = sum(work.pending for work in prefills)
    slack = _slack(prefills, costs, now)
    kept = budget.tokens // 2 if slack < IN_A_HURRY else budget.kept_for_prefill
    least_prefill = min(max(kept, budget.granularity), pending)
    longest = costs.seconds(min(budget.tokens, pending), len(decodes))
    decoding = _who_decodes(
        decodes[: budget.tokens - least_prefill],
        # Whoever is left out now must be able to wait for this pass and the next.
        now + 2 * longest,
        slack,
        costs,
        now,
    )
    tokens = budget.tokens - len(decoding)
    if decoding and costs.prefill_s:
        until_dry = max(0.0, decoding[0].due - now - costs.seconds(0, len(decoding)))
        tokens = min(tokens, max(least_prefill, math.floor(min(tokens, AS_PLANNED * until_dry / costs.prefill_s))))
    return [Share(work.key, 1) for work in decoding] + _share_out(prefills, tokens, budget.granularity)


def first_token_due(work: Work, costs: Costs, now: float) -> float:
    """When the first token of a prompt is needed, put back where that cannot be reached any more."""
    return work.due if now + work.pending * costs.prefill_s <= work.due else work.due + LATE_GRACE


def _who_decodes(decodes: Sequence[Work], soon: float, slack: float, costs: Costs, now: float) -> Sequence[Work]:
    """Of those who may decode, earliest due first: who is due before `soon`, and who does not hold up anyone."""
    urgent = sum(work.due < soon for work in decodes)
    base = costs.seconds(0, urgent)
    spare = min(slack, decodes[0].due - now - base) if urgent else slack
    spare = max(spare, NEXT_TO_NOTHING * base)
    joining = math.floor(min(len(decodes), spare / costs.decode_s)) if costs.decode_s else len(decodes)
    return decodes[: urgent + joining]


def _slack(prefills: Sequence[Work], costs: Costs, now: float) -> float:
    """How much later than now prefilling could begin with every first token still in time, of those that can be."""
    slack, ahead = math.inf, 0.0
    for work in prefills:
        ahead += work.pending * costs.prefill_s
        if now + work.pending * costs.prefill_s <= work.due:
            slack = min(slack, work.due - now - ahead)
    return slack


def _share_out(prefills: Sequence[Work], tokens: int, granularity: int) -> list[Share]:
    shares: list[Share] = []
    for work in prefills:
        take = work.pending if work.pending <= tokens else tokens - tokens % granularity
        if take == 0:
            break
        shares.append(Share(work.key, take))
        tokens -= take
    return shares
