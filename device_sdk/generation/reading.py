"""What a KV cache holds of a text: what one turn of a conversation leaves to the next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from device_sdk.generation.spans import Spans, first, size, within


@dataclass(frozen=True, slots=True)
class Reading:
    """Of `tokens` those at `taken`, in their order, at contiguous positions. A refinement may have left some out."""

    tokens: tuple[int, ...] = ()
    taken: Spans = ()

    def __len__(self) -> int:
        """Tokens in the KV cache."""
        return size(self.taken)

    @property
    def ids(self) -> tuple[int, ...]:
        """What is in the KV cache."""
        return tuple(token for start, end in self.taken for token in self.tokens[start:end])

    def of(self, prompt: Sequence[int]) -> Spans:
        """The positions of `prompt` that are read: those before the first token where the texts differ."""
        pairs = zip(self.tokens, prompt, strict=False)
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return within(self.taken, 0, alike)

    def cut(self, length: int) -> Reading:
        """The first `length` tokens of what the KV cache holds."""
        taken = first(self.taken, length)
        return Reading(self.tokens[: taken[-1][1]] if taken else (), taken)
