"""One generation between its acceptance and its end. Touches no engine and no clock: the runner does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from cloud_service.scheduler.estimates import Demand
from cloud_service.scheduler.evidence import EvidenceCollector
from cloud_service.scheduler.jobs import Carried, Emitted, Job, Listener, Seen
from cloud_service.scheduler.output import Output
from cloud_service.scheduler.policy import Work
from cloud_service.scheduler.seats import Seat
from cloud_service.scheduler.slack import Report, Targets, first_token_needed, next_token_needed
from model_runtime.constraint import Matcher, compile_constraint, constraint_from
from model_runtime.core import Chunk, FloatArray, Logits, Result, Tokenizer
from model_runtime.sampling import Sampler
from wire_protocol.messages import Usage

#: Why a generation can give no more tokens; `grant` alone can be undone, by an extension.
Halt: TypeAlias = Literal["grant", "eos", "stop", "context"]


@dataclass(slots=True)
class Spent:
    """Seconds. Engine time is this generation's share of its passes, by tokens."""

    queued: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


@dataclass(slots=True)
class Generation:
    """Belongs to the runner's thread; others may read its numbers for an estimate."""

    key: int
    job: Job
    listener: Listener
    tokenizer: Tokenizer
    context_length: int
    arrived: float
    targets: Targets = field(default_factory=Targets)
    #: What it brings along from elsewhere; None once that is in the engine.
    carried: Carried | None = None
    #: As expected on arrival: tokens that need no prefill, and what the prefill of the others takes, in seconds.
    expected: int = 0
    prefill_s: float = 0.0
    #: Prompt, answer so far and what was sampled here.
    tokens: list[int] = field(init=False)
    grant: int = field(init=False)
    #: Output tokens sampled here.
    given: int = 0
    #: In the engine; None while it waits for one.
    seat: Seat | None = None
    #: How many of `tokens` are in the engine's KV cache, and how many were when it was seated.
    fed: int = 0
    cached: int = 0
    halt: Halt | None = None
    #: Its KV cache was handed over: it waits to be told to leave, or to resume.
    away: bool = False
    #: What the device said last of its buffer.
    report: Report | None = None
    #: When a used-up grant is reported after all, if no extension comes.
    linger_until: float | None = None
    spent: Spent = field(default_factory=Spent)
    #: When its first and its last token were sampled.
    _first_at: float = 0.0
    _last_at: float = 0.0
    _answer: list[int] = field(init=False)
    _sampler: Sampler = field(init=False)
    _output: Output = field(init=False)
    #: It has shown a token elsewhere, so the next one is wanted at once.
    _begun: bool = field(init=False)
    #: Whether it may still be handed over.
    _stays: bool = field(init=False)
    #: None where nobody wants to see anything: most passes of most generations.
    _evidence: EvidenceCollector | None = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = [*self.job.prompt, *self.job.output]
        needs = self.job.needs
        self._evidence = None if needs.nothing else EvidenceCollector(needs, self.job.prompt, len(self.tokens))
        self.grant = self.job.grant
        self._answer = list(self.job.output)
        self._sampler = Sampler(self.job.sampling, self.job.whole_prompt, self._rule())
        self._output = Output(self.job, self.tokenizer)
        self._begun = self.carried is not None
        self._stays = not self.job.hands_over
        self.halt = "stop" if self._output.stopped else self._limit()

    @property
    def begins_at(self) -> int:
        """Tokens of the prompt and of the answer before this job."""
        return len(self.tokens) - self.given

    @property
    def runs(self) -> bool:
        """Whether it has work for the next pass."""
        return self.halt is None and not self.away

    @property
    def can_move(self) -> bool:
        """Whether it is to be handed over now: a token is there, and scorers have seen all that they want to."""
        if self._stays or not self.runs or self.given == 0:
            return False
        return self.fed >= self.begins_at + self.job.needs.answer_rows

    @property
    def pending(self) -> int:
        """Tokens not yet in the KV cache."""
        return len(self.tokens) - self.fed

    @property
    def to_prefill(self) -> int:
        """Tokens between it and its first one, as far as is known; 0 once that is there."""
        if self.given:
            return 0
        return len(self.tokens) - (self.expected if self.seat is None else self.fed)

    @property
    def reserve(self) -> int:
        """Tokens that its KV cache may come to hold."""
        return min(self.begins_at + self.grant, self.context_length)

    @property
    def reusable(self) -> int:
        """How many of its first tokens may come from a past generation: not the last one, whose logits are wanted, nor
        what a scorer wants to see go through the engine."""
        needs = self.job.needs
        return 0 if needs.logprobs else max(0, len(self.tokens) - max(1, needs.prompt_rows))

    @property
    def demand(self) -> Demand:
        """What it will take to use up the grant."""
        decode = max(0, self.grant - self.given) if self.halt is None else 0
        return Demand(self.to_prefill, decode, self.reserve if self.seat is None else self.seat.own, self.due)

    @property
    def due(self) -> float:
        """When its next token is needed."""
        if self.given:
            return next_token_needed(self.given, self._first_at, self._last_at, self.report, self.targets)
        if self._begun:
            return self.arrived + self.targets.pace
        return first_token_needed(self.arrived, self.prefill_s, self.job.deadline, self.targets)

    @property
    def work(self) -> Work:
        return Work(self.key, self.pending, self.given > 0, self.due)

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self.job.whole_prompt),
            cached_tokens=min(self.cached, len(self.job.prompt)),
            output_tokens=self.given,
            queue_ms=self.spent.queued * 1000,
            prefill_ms=self.spent.prefill * 1000,
            decode_ms=self.spent.decode * 1000,
        )

    def sit(self, seat: Seat) -> None:
        """It has a sequence, which may hold some of its tokens already."""
        self.seat = seat
        self.carried = None
        self.fed = self.cached = seat.cached

    def hand_over(self) -> None:
        """Its KV cache is on its way elsewhere."""
        self.away = self._stays = True

    def resume(self) -> None:
        """Nobody took it: it goes on here, and stays."""
        self.away = False

    def chunk(self, count: int) -> Chunk:
        """The next `count` pending tokens; logits are asked for where they are the last ones, and what a scorer
        needs where it is to be seen."""
        if self.seat is None:
            raise RuntimeError(f"generation {self.key} has no sequence to feed")
        end = self.fed + count
        logits = Logits.LAST if end == len(self.tokens) else Logits.NONE
        chunk = Chunk(self.seat.sequence, self.tokens[self.fed : end], logits)
        return chunk if self._evidence is None else self._evidence.equip(chunk, self.fed)

    def fed_tokens(self, chunk: Chunk, result: Result, seconds: float) -> Seen | None:
        """`chunk` went through the engine in `seconds` of its time; returns what a scorer has waited for."""
        if self.given == 0:
            self.spent.prefill += seconds
        else:
            self.spent.decode += seconds
        seen = None if self._evidence is None else self._evidence.take(chunk, self.fed, result)
        self.fed += len(chunk.tokens)
        if not self.given and self.halt is None:  # an empty grant that was only to be looked at
            self.halt = self._limit()
        return seen

    def sample(self, logits: FloatArray, now: float) -> Emitted | None:
        """The next token from the logits of the last one fed; sets `halt` where it ends the answer or the grant.

        The token that ends an answer is not part of it. Raises EngineFailedError for unusable logits, ConstraintError
        where nothing may follow.
        """
        token = self._sampler.sample(logits, self._answer)
        if token in self.tokenizer.eos_ids:
            self.halt = "eos"
            return None
        self.tokens.append(token)
        self._answer.append(token)
        self.given += 1
        self._last_at = now
        if self.given == 1:
            self._first_at = now
        emitted = self._output.push(token)
        self.halt = "stop" if self._output.stopped else self._limit()
        return emitted

    def extend(self, grant: int) -> None:
        """Raise the grant; a smaller one changes nothing. Undoes a halt by `grant`."""
        self.grant = max(self.grant, grant)
        if self.halt == "grant":
            self.halt = self._limit()

    def end(self) -> Emitted | None:
        """What was held back for a stop string that did not come."""
        return self._output.end()

    def _rule(self) -> Matcher | None:
        asked = self.job.constraint
        if asked is None:
            return None
        return compile_constraint(constraint_from(asked.kind, asked.text), self.tokenizer).start()

    def _limit(self) -> Halt | None:
        if self.given >= self.grant:
            looks = self._evidence is not None and self._evidence.looks_at_prompt
            return None if looks and self.fed < self.begins_at else "grant"
        # The last token sampled needs no place in the context, but nothing can be sampled after it.
        return "context" if len(self.tokens) >= self.context_length else None
