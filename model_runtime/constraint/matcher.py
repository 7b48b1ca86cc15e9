"""Which tokens may come next, and whether what came keeps to a constraint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_runtime.constraint.library import VOCABULARIES, new_matcher
from model_runtime.constraint.spec import Constraint
from model_runtime.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from model_runtime.core import Tokenizer

BoolArray: TypeAlias = NDArray[np.bool_]


class Compiled:
    """A constraint over one tokenizer, ready for any number of answers. Immutable; safe to use from any thread."""

    def __init__(self, constraint: Constraint, matcher: LLMatcher, size: int) -> None:
        self.constraint = constraint
        self._matcher = matcher
        self._size = size

    def start(self) -> Matcher:
        """For one answer, at its beginning."""
        return Matcher(self._matcher.deep_copy(), self._size)


def compile_constraint(constraint: Constraint, tokenizer: Tokenizer) -> Compiled:
    """Takes milliseconds where the constraint is new, and up to a second where a large tokenizer is: not for an event
    loop's thread. The last ones of each tokenizer are kept, and cost nothing again. Raises
    ConstraintUnavailableError where the library is missing, ConstraintError for what cannot be held."""
    return Compiled(constraint, VOCABULARIES.matcher(constraint, tokenizer), tokenizer.vocabulary_size)


class Matcher:
    """Follows one answer, token by token. One thread at a time."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher = matcher
        self._words = np.zeros((size + 31) // 32, dtype=np.int32)
        self._consumed: list[int] = []
        self._size = size

    def allowed(self, output: Sequence[int]) -> BoolArray:
        """Which ids may follow `output`: (vocabulary of the tokenizer,). One that ends the answer is among them exactly
        where the answer is complete.

        `output` may go on from the last call's, or be shorter, or differ: only the difference costs. Raises
        ConstraintError where it breaks the constraint, or nothing may follow, or the constraint is too complex here.
        """
        self.follow(output)
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        if self._matcher.is_error():
            raise ConstraintError(f"the constraint cannot be held at output token {len(output)}: {self._why()}")
        return np.unpackbits(self._words.view(np.uint8), count=self._size, bitorder="little").view(np.bool_)

    def follow(self, output: Sequence[int]) -> None:
        """Consume `output`. Raises ConstraintError where it breaks the constraint."""
        wanted = list(output)
        common = _common(self._consumed, wanted)
        if common < len(self._consumed):
            self._matcher.rollback(len(self._consumed) - common)
            del self._consumed[common:]
        new = wanted[common:]
        taken = self._matcher.try_consume_tokens(new) if new else 0
        self._consumed += new[:taken]
        if taken < len(new):
            raise ConstraintError(
                f"output token {common + taken} breaks the constraint that the answer was asked under"
            )

    @property
    def complete(self) -> bool:
        """Whether the answer so far satisfies the constraint; more may still be allowed."""
        return self._matcher.is_accepting()

    def _why(self) -> str:
        [reason, *_] = [*self._matcher.get_error().splitlines(), ""]
        return "no token of this model's vocabulary can go on" if reason == "NoExtensionBias" else reason[:300]


def _common(a: list[int], b: list[int]) -> int:
    if b[: len(a)] == a:
        return len(a)
    return next(index for index, pair in enumerate(zip([*a, -1], [*b, -2], strict=False)) if pair[0] != pair[1])


class Watch:
    """Follows an answer that comes from elsewhere, as bytes, whatever its tokens are. One thread at a time."""

    def __init__(self, constraint: Constraint) -> None:
        """Raises as `compile_constraint`."""
        self._start = new_matcher(constraint, VOCABULARIES.of_bytes())
        self._matcher = self._start.deep_copy()

    def restart(self, data: bytes) -> bool:
        """Begin again after `data`; whether that is within the constraint."""
        self._matcher = self._start.deep_copy()
        return self.push(data)

    def push(self, data: bytes) -> bool:
        """Whether the answer may go on with `data`. After False, only `restart` helps."""
        return self._matcher.try_consume_tokens(list(data)) == len(data)

    @property
    def complete(self) -> bool:
        """Whether what came so far satisfies the constraint."""
        return self._matcher.is_accepting()
