"""Whom a generation is offered to, and in what order. Pure.

An instance accepts or rejects; what is known of it here only says who is likely to accept, and to be quick. Counts of
running generations are exact, as all of them came from here; how much of a prompt it still has is a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloud_service.pool.roles import Role

#: What one more running generation costs a newcomer, in tokens of prefill.
RUNNING = 32


@dataclass(frozen=True, slots=True)
class Candidate:
    instance: int
    role: Role
    #: Generations there.
    running: int = 0
    #: Tokens there that are not yet prefilled.
    backlog: int = 0
    #: Tokens of this prompt that it probably still has.
    known: int = 0

    @property
    def cost(self) -> int:
        """Of taking this prompt on there, in tokens of prefill, but for what is the same everywhere."""
        return self.backlog + RUNNING * self.running - self.known


def to_begin(candidates: Iterable[Candidate]) -> list[Candidate]:
    """For a prompt: the cheapest first. Those that only decode are asked where nobody else is left."""
    able = list(candidates)
    fitting = [candidate for candidate in able if candidate.role != "decode"]
    return sorted(fitting or able, key=lambda candidate: (candidate.cost, candidate.instance))


def to_take_over(candidates: Iterable[Candidate]) -> list[Candidate]:
    """For an answer that was begun elsewhere: who decodes before who does both, the emptiest first. Those that only
    prefill are not asked: it would not be worth the way."""
    able = [candidate for candidate in candidates if candidate.role != "prefill"]
    return sorted(able, key=lambda candidate: (candidate.role != "decode", candidate.running, candidate.instance))
