"""Which generations take part in the next pass, and with how many tokens. Pure: no clock, no engine, no state.

Round-robin under a token budget: whoever was served longest ago comes first, decode tokens before prefill chunks
(they are short, and somebody is watching them arrive). A share of the budget is kept for prefill while any prompt
waits, so that many answers in progress cannot starve a new one; and as everyone served moves to the back, no one
starves behind their own kind either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """A generation that has tokens to feed."""

    key: int
    #: Tokens not yet fed: what is left of the prompt, or 1 while decoding.
    pending: int
    decoding: bool
    #: The number of the last pass it took part in; for a new one, of the pass before its arrival.
    last_pass: int


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


@dataclass(frozen=True, slots=True)
class Share:
    """`tokens` of generation `key` go into the pass."""

    key: int
    tokens: int


def plan_pass(works: Iterable[Work], budget: PassBudget) -> list[Share]:
    """The next pass; empty only where no generation has work. Each generation appears at most once."""
    queue = sorted(works, key=lambda work: (work.last_pass, work.key))
    decodes = [work for work in queue if work.decoding]
    prefills = [work for work in queue if not work.decoding]
    kept = min(budget.kept_for_prefill, sum(work.pending for work in prefills))
    shares = [Share(work.key, 1) for work in decodes[: budget.tokens - kept]]
    return shares + _share_out(prefills, budget.tokens - len(shares), budget.granularity)


def _share_out(prefills: Sequence[Work], tokens: int, granularity: int) -> list[Share]:
    shares: list[Share] = []
    for work in prefills:
        take = work.pending if work.pending <= tokens else tokens - tokens % granularity
        if take == 0:
            break
        shares.append(Share(work.key, take))
        tokens -= take
    return shares
