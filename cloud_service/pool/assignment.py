"""One generation, wherever it is done: what was given so far, and what is asked of whoever goes on with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cloud_service.pool import frames
from cloud_service.pool.families import Keys, keys_of
from cloud_service.refinement.contract import NO_NEEDS
from cloud_service.scheduler.jobs import Emitted, Ended, Job, Listener
from cloud_service.scheduler.output import Output
from cloud_service.scheduler.slack import Targets, first_token_needed
from model_runtime.core import Tokenizer
from wire_protocol.messages import Usage

if TYPE_CHECKING:
    from cloud_service.pool.dispatcher import Timer
    from cloud_service.pool.instance import Instance


@dataclass(slots=True, eq=False)
class Leg:
    """A generation's stay at one instance, from the offer on."""

    key: int
    instance: Instance
    assignment: Assignment
    #: Tokens of the answer that were there before it.
    first: int
    #: Prompt tokens between it and its first one; 0 from there on.
    backlog: int
    #: Of its instance when it was offered: what has changed there since, a rejection does not know of.
    epoch: int
    #: What it goes on with, where it was begun elsewhere: the KV cache, and what that took.
    origin: frames.Handed | None = None
    #: Whether its own KV cache was handed over.
    handed: bool = False
    took: bool = False
    #: When it was taken on, and gave its last token.
    since: float = 0.0
    last_at: float = 0.0


@dataclass(slots=True, eq=False)
class Assignment:
    """Where text is wanted, it is made here: tokens alone travel, so that any instance can go on with any answer."""

    key: int
    job: Job
    listener: Listener
    tokenizer: Tokenizer
    arrived: float
    targets: Targets
    grant: int = field(init=False)
    ids: list[int] = field(default_factory=list)
    #: Who does it; None while it waits.
    leg: Leg | None = None
    #: Who is asked to take over.
    heir: Leg | None = None
    #: Instances that turned it away, with their epoch then and how long they said that it would have to wait, in s.
    turned_away: dict[int, tuple[int, float | None]] = field(default_factory=dict)
    #: Instances that died with it.
    deaths: int = 0
    #: Why it ends, once that is decided; its instance has been told to leave it.
    ending: Literal["stopped", "stop"] | None = None
    #: When its deadline, or what it may take to move after a crash, is over.
    timer: Timer | None = None
    queued_s: float = 0.0
    #: It has had its terminal event, or nobody listens any more.
    over: bool = False
    keys: Keys = field(init=False)
    _usage: Usage = field(default_factory=lambda: Usage(0, 0))
    _output: Output = field(init=False)

    def __post_init__(self) -> None:
        self.grant = self.job.grant
        self._output = Output(self.job, self.tokenizer)
        self.keys = keys_of(self.job.prompt, self.job.scope, self.job.family)

    @property
    def given(self) -> int:
        return len(self.ids)

    @property
    def begun(self) -> bool:
        """Whether a token was given, so that no deadline matters any more."""
        return bool(self.ids)

    @property
    def due(self) -> float:
        """When its next token is needed; who waits is offered in this order."""
        if self.begun:
            return self.arrived
        return first_token_needed(self.arrived, 0.0, self.job.deadline, self.targets)

    @property
    def stopped(self) -> bool:
        """Whether the answer holds a stop string."""
        return self._output.stopped

    @property
    def legs(self) -> list[Leg]:
        return [leg for leg in (self.leg, self.heir) if leg is not None]

    def rest(self, *, hands_over: bool) -> Job:
        """What is left to do."""
        job = self.job
        return dataclasses.replace(
            job,
            output=(*job.output, *self.ids),
            grant=self.grant - self.given,
            deadline=None if self.begun else job.deadline,
            needs=NO_NEEDS if self.begun else job.needs,
            wants_text=False,
            stop=(),
            hands_over=hands_over,
        )

    def give(self, ids: tuple[int, ...]) -> list[Emitted]:
        """Note tokens; returns what the listener gets of them."""
        emitted = []
        for token in ids:
            if self.stopped:
                break
            self.ids.append(token)
            part = self._output.push(token)
            if part is not None:
                emitted.append(part)
        return emitted

    def spent(self, usage: Usage) -> None:
        """A leg is over, and took so much."""
        first = self._usage.prompt_tokens == 0
        self._usage = Usage(
            prompt_tokens=len(self.job.whole_prompt),
            # Only where it began: what a later leg was handed is no prompt that it was spared.
            cached_tokens=usage.cached_tokens if first else self._usage.cached_tokens,
            output_tokens=self.given,
            queue_ms=self._usage.queue_ms + usage.queue_ms,
            prefill_ms=self._usage.prefill_ms + usage.prefill_ms,
            decode_ms=self._usage.decode_ms + usage.decode_ms,
        )

    def end(self, reason: Literal["grant", "eos", "stop", "stopped", "context"]) -> tuple[Emitted | None, Ended]:
        """What was held back for a stop string that did not come, and the end."""
        usage = self._usage
        whole = Usage(
            prompt_tokens=len(self.job.whole_prompt),
            cached_tokens=usage.cached_tokens,
            output_tokens=self.given,
            queue_ms=usage.queue_ms + self.queued_s * 1000,
            prefill_ms=usage.prefill_ms,
            decode_ms=usage.decode_ms,
        )
        return self._output.end(), Ended(reason, whole)
