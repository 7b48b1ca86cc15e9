"""Sampling: one implementation for all engines, in NumPy.

A token is a pure function of (params, prompt, logits, output so far). The noise is drawn from a counter-based
generator by (seed, position in the output), for every id of the vocabulary, and the token is the one with the
largest `logit / temperature + Gumbel noise` among those that the filters leave. Two consequences: whoever samples
position i, cloud or device, draws the same noise; and a small difference in logits changes the token only where two
candidates were nearly equal.

The processors run in the order of transformers: repetition penalty, presence and frequency penalty, temperature,
top-k, top-p, min-p. Equal logits at a filter's limit are all kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_runtime.errors import BadInputError, BadTokenError, ConstraintError, EngineFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_runtime.core import FloatArray

_Ids: TypeAlias = NDArray[np.int64]

#: Logits divided by less would leave the range in which float32 tells them apart.
_GREEDY_BELOW = 1e-5


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to pick a token. The defaults are greedy. Raises BadInputError, naming the field."""

    #: 0 (or less than 1e-5) takes the most likely token, of equals the lowest id; filters and seed change nothing then.
    temperature: float = 0.0
    #: Keep the k most likely; 0 keeps all.
    top_k: int = 0
    #: Keep the fewest most likely tokens whose probabilities reach this sum; in (0, 1].
    top_p: float = 1.0
    #: Keep tokens at least this share as likely as the most likely one; in [0, 1].
    min_p: float = 0.0
    #: Divides positive and multiplies negative logits of tokens in prompt or output; in [0.01, 100], 1 changes nothing.
    repetition_penalty: float = 1.0
    #: Subtracted once from the logit of each token that the output holds.
    presence_penalty: float = 0.0
    #: Subtracted for each time that the output holds the token.
    frequency_penalty: float = 0.0
    #: In [0, 2**63).
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("temperature", 0.0, 100.0),
            ("min_p", 0.0, 1.0),
            # Much smaller ones lift logits out of the range of float32.
            ("repetition_penalty", 0.01, 100.0),
            ("presence_penalty", -100.0, 100.0),
            ("frequency_penalty", -100.0, 100.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise BadInputError(f"{name} must be from {low:g} to {high:g}, not {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise BadInputError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise BadInputError(f"top_k must be 0 (all tokens) or more, not {self.top_k}")
        if not 0 <= self.seed < 2**63:
            raise BadInputError(f"seed must be from 0 to 2**63 - 1, not {self.seed}")


class Rule(Protocol):
    """Which tokens may come next; see `model_runtime.constraint.Matcher`."""

    def allowed(self, output: Sequence[int]) -> NDArray[np.bool_]: ...


class Sampler:
    """Samples the tokens of one answer. One thread at a time; costs O(vocabulary) for a token."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], rule: Rule | None = None) -> None:
        """`rule` leaves out tokens before anything else does; None allows all."""
        self.params = params
        self._rule = rule
        self._greedy = params.temperature < _GREEDY_BELOW
        self._penalties = _Penalties(params, prompt)
        #: The largest logit is the next token, and nothing else is to be looked at.
        self._plain = self._greedy and rule is None and not self._penalties.active

    def sample(self, logits: FloatArray, output: Sequence[int]) -> int:
        """The token at output position `len(output)`, from `logits` of shape (vocabulary,), which stay as they are.

        -inf marks a token that cannot be. Raises EngineFailedError where the logits hold NaN or +inf or leave no
        token at all, BadTokenError where prompt or output hold an id outside the logits, BadInputError for a shape
        other than (vocabulary,), ConstraintError where the rule does or leaves none.
        """
        if self._plain and logits.ndim == 1 and logits.size and logits.dtype == np.float32:
            best = int(logits.argmax())  # of a NaN, where there is one
            if math.isfinite(logits[best]):
                return best
        scores = self._scores(logits, output)
        if self._greedy:
            return int(scores.argmax())
        limit = _limit(scores, self.params)
        words = _words(self.params.seed, len(output), scores.size)
        if limit == -np.inf:
            return int((scores + _gumbel(words)).argmax())
        ids = np.flatnonzero(scores >= limit)
        return int(ids[(scores[ids] + _gumbel(words[ids])).argmax()])

    def probabilities(self, logits: FloatArray, output: Sequence[int]) -> FloatArray:
        """What `sample` draws from: (vocabulary,), summing to 1. Raises as `sample` does."""
        scores = self._scores(logits, output)
        ids = np.atleast_1d(scores.argmax())
        if not self._greedy:
            ids = np.flatnonzero(scores >= _limit(scores, self.params))
        weights = np.exp(scores[ids] - scores[ids].max())
        result = np.zeros(scores.size, dtype=np.float32)
        result[ids] = weights / weights.sum()
        return result

    def _scores(self, logits: FloatArray, output: Sequence[int]) -> FloatArray:
        """Logits after penalties and temperature."""
        if logits.ndim != 1 or not logits.size:
            raise BadInputError(f"logits must have shape (vocabulary,), not {logits.shape}: sample one position a call")
        # The largest of an array with a NaN is NaN, so this one look finds every defect.
        if not np.isfinite(logits.max()):
            where = f"output position {len(output)}"
            raise EngineFailedError(f"the engine returned unusable logits at {where}: {_defect(logits)}")
        scores = self._penalties.apply(self._within_rule(np.asarray(logits, dtype=np.float32), output), output)
        return scores if self._greedy else scores / np.float32(self.params.temperature)

    def _within_rule(self, logits: FloatArray, output: Sequence[int]) -> FloatArray:
        if self._rule is None:
            return logits
        allowed = self._rule.allowed(output)[: logits.size]
        scores = np.full_like(logits, -np.inf)
        scores[: allowed.size][allowed] = logits[: allowed.size][allowed]
        if not (scores > -np.inf).any():
            raise ConstraintError(f"the engine gives no token that may come at output position {len(output)}")
        return scores


def _limit(scores: FloatArray, params: SamplingParams) -> np.float32:
    """Top-k, top-p and min-p keep the scores from this one up."""
    limit = np.float32(-np.inf)
    if 0 < params.top_k < scores.size:
        limit = np.partition(scores, scores.size - params.top_k)[scores.size - params.top_k]
    if params.top_p < 1:
        kept = scores[scores >= limit]
        weights = np.exp(kept - kept.max())
        total = weights.sum(dtype=np.float64)
        # Together, tokens below this weight have less than 1 - top_p: the tail, which need not be sorted.
        kept = np.sort(kept[weights >= (1 - params.top_p) * total / kept.size])[::-1]
        sums = np.cumsum(np.exp(kept - kept[0]), dtype=np.float64)
        # A token stays while the tokens before it have not reached top_p.
        limit = kept[np.searchsorted(sums[:-1], params.top_p * total, side="left")]
    if params.min_p > 0:
        limit = max(limit, scores.max() + np.float32(math.log(params.min_p)))
    return limit


def _words(seed: int, position: int, size: int) -> NDArray[np.uint64]:
    """Random bits for ids 0 … size - 1; those of an id do not depend on `size`.

    Raw words of Philox, which NumPy promises never to change, while it may change how its distributions use them.
    """
    words: NDArray[np.uint64] = np.random.Philox(key=seed, counter=position << 64).random_raw(size)
    return words


def _gumbel(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Gumbel noise: `argmax(score + noise)` draws from softmax(score)."""
    # The upper 52 bits as the fraction of a number in [1, 2), then in (0, 1): noise is finite at both ends.
    uniform = (words >> np.uint64(12) | np.uint64(0x3FF0000000000000)).view(np.float64) - (1 - 2.0**-53)
    noise: NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise


class _Penalties:
    """Counts tokens as the output grows, so that a step looks at the new tokens only."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        self._repetition = np.float32(params.repetition_penalty)
        self._presence = np.float32(params.presence_penalty)
        self._frequency = np.float32(params.frequency_penalty)
        self.active = params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0
        self._prompt = np.asarray(prompt if self.active else (), dtype=np.int64)
        self._counted: list[int] = []
        self._counts = np.zeros(0, dtype=np.float32)  # of the output's tokens, by id
        self._seen = np.zeros(0, dtype=np.bool_)  # in prompt or output, by id

    def apply(self, logits: FloatArray, output: Sequence[int]) -> FloatArray:
        if not self.active:
            return logits
        self._count(list(output), logits.size)
        logits = logits.copy()
        seen = np.flatnonzero(self._seen)
        values = logits[seen]
        values = np.where(values > 0, values / self._repetition, values * self._repetition)
        counts = self._counts[seen]
        logits[seen] = values - self._frequency * counts - self._presence * (counts > 0)
        return logits

    def _count(self, output: list[int], vocabulary: int) -> None:
        if self._counts.size != vocabulary or output[: len(self._counted)] != self._counted:
            self._counted = []
            self._counts = np.zeros(vocabulary, dtype=np.float32)
            self._seen = np.zeros(vocabulary, dtype=np.bool_)
            self._seen[_within(self._prompt, vocabulary)] = True
        new = _within(np.asarray(output[len(self._counted) :], dtype=np.int64), vocabulary)
        np.add.at(self._counts, new, 1)
        self._seen[new] = True
        self._counted = output


def _within(ids: _Ids, vocabulary: int) -> _Ids:
    if ids.size and not (ids.min() >= 0 and ids.max() < vocabulary):
        raise BadTokenError(f"prompt or output holds an id outside the {vocabulary} ids of the logits")
    return ids


def _defect(logits: FloatArray) -> str:
    if not (logits > -np.inf).any():
        return "every token is at -inf"
    return f"{int(np.isnan(logits).sum())} NaN and {int(np.isposinf(logits).sum())} +inf among {logits.size}"
