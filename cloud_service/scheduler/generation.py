"""One generation between its acceptance and its end. Touches no engine and no clock: the runner does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from cloud_service.scheduler.estimates import Demand
from cloud_service.scheduler.jobs import Emitted, Job, Listener
from cloud_service.scheduler.output import Output
from cloud_service.scheduler.policy import Work
from model_runtime.core import Chunk, FloatArray, Logits, Tokenizer
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
    #: As in `policy.Work`.
    last_pass: int
    #: Prompt, answer so far and what was sampled here.
    tokens: list[int] = field(init=False)
    grant: int = field(init=False)
    #: In the engine; None while it waits for a place.
    sequence: int | None = None
    #: How many of `tokens` are in the engine's KV cache.
    fed: int = 0
    halt: Halt | None = None
    #: When a used-up grant is reported after all, if no extension comes.
    linger_until: float | None = None
    spent: Spent = field(default_factory=Spent)
    _answer: list[int] = field(init=False)
    _sampler: Sampler = field(init=False)
    _output: Output = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = [*self.job.prompt, *self.job.output]
        self.grant = self.job.grant
        self._answer = list(self.job.output)
        self._sampler = Sampler(self.job.sampling, self.job.prompt)
        self._output = Output(self.job, self.tokenizer)
        self.halt = "stop" if self._output.stopped else self._limit()

    @property
    def given(self) -> int:
        """Output tokens sampled here."""
        return len(self._answer) - len(self.job.output)

    @property
    def pending(self) -> int:
        """Tokens not yet in the KV cache."""
        return len(self.tokens) - self.fed

    @property
    def demand(self) -> Demand:
        """What it will take to use up the grant."""
        prefill = self.pending if self.given == 0 else 0
        return Demand(prefill, max(0, self.grant - self.given) if self.halt is None else 0)

    @property
    def work(self) -> Work:
        return Work(self.key, self.pending, decoding=self.given > 0, last_pass=self.last_pass)

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self.job.prompt),
            output_tokens=self.given,
            queue_ms=self.spent.queued * 1000,
            prefill_ms=self.spent.prefill * 1000,
            decode_ms=self.spent.decode * 1000,
        )

    def chunk(self, count: int) -> Chunk:
        """The next `count` pending tokens; logits are asked for where they are the last ones."""
        if self.sequence is None:
            raise RuntimeError(f"generation {self.key} has no sequence to feed")
        end = self.fed + count
        logits = Logits.LAST if end == len(self.tokens) else Logits.NONE
        return Chunk(self.sequence, self.tokens[self.fed : end], logits)

    def fed_tokens(self, count: int, seconds: float) -> None:
        """`count` tokens went through the engine in `seconds` of its time."""
        if self.given == 0:
            self.spent.prefill += seconds
        else:
            self.spent.decode += seconds
        self.fed += count

    def sample(self, logits: FloatArray) -> Emitted | None:
        """The next token from the logits of the last one fed; sets `halt` where it ends the answer or the grant.

        The token that ends an answer is not part of it. Raises EngineFailedError for unusable logits.
        """
        token = self._sampler.sample(logits, self._answer)
        if token in self.tokenizer.eos_ids:
            self.halt = "eos"
            return None
        self.tokens.append(token)
        self._answer.append(token)
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

    def _limit(self) -> Halt | None:
        if self.given >= self.grant:
            return "grant"
        # The last token sampled needs no place in the context, but nothing can be sampled after it.
        return "context" if len(self.tokens) >= self.context_length else None
