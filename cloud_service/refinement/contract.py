"""What a scorer is: a prompt and what an engine showed of it in, an importance for each token out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from model_runtime.core import FloatArray

#: Half-open, in tokens of the prompt.
Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the serving engine reads it, chat template included."""

    tokens: tuple[int, ...]
    #: The bytes that each token adds to the text; empty for the template's special tokens. A character may be split
    #: between two of them.
    pieces: tuple[bytes, ...]
    #: What stays whatever its score: system text, template, question, last window. In order, disjoint.
    protected: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Needs:
    """What a scorer wants to see of the engine's own work on the prompt. Nothing costs nothing."""

    #: Layers whose attention is wanted; 0 is the first.
    layers: tuple[int, ...] = ()
    #: How many of the prompt's last positions are wanted as queries.
    prompt_rows: int = 0
    #: How many of the answer's first tokens are wanted as queries: the scorer then makes a later stage.
    answer_rows: int = 0
    #: Whether the prompt's own log-probabilities are wanted.
    logprobs: bool = False

    @property
    def nothing(self) -> bool:
        """Whether the scorer can begin before the engine has."""
        return not (self.prompt_rows or self.answer_rows or self.logprobs)


#: Of a generation that nobody wants refined.
NO_NEEDS = Needs()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to see. `None` where it was not asked for."""

    #: (layers, heads, rows, prompt tokens): attention of the rows over the prompt, as `Needs` asked; fewer rows where
    #: the engine computed fewer (a short prompt, a cached prefix, a short answer), but at least one.
    attention: FloatArray | None = None
    #: Which layers these are.
    layers: tuple[int, ...] = ()
    #: (prompt tokens,): ln p(token | what stands before it). The first token has no probability: 0.
    logprobs: FloatArray | None = None
    #: (prompt tokens,): what the stage before this one scored.
    earlier: FloatArray | None = None


class Scorer(Protocol):
    """Says how much each token of a prompt matters for its answer. Used from one thread at a time, never the
    engine's; whatever it raises is logged and the prompt is kept whole."""

    @property
    def name(self) -> str:
        """For reports and metrics."""
        ...

    @property
    def needs(self) -> Needs: ...

    def score(self, prompt: Prompt, evidence: Evidence) -> FloatArray:
        """(prompt tokens,) float32, finite; more matters more. Only their order and their proportions count."""
        ...
