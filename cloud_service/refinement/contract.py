"""What a refiner is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from wire_protocol.messages import Refine, Span


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in the unit that the client counts in.

    Characters are those of all messages' contents, one after the other with nothing between.
    """

    unit: Literal["tokens", "characters"]
    length: int


class Refiner(Protocol):
    """Decides which spans of a prompt a device may not leave out."""

    def refine(self, prompt: Prompt, wish: Refine) -> tuple[Span, ...]:
        """Spans to keep: half-open, in order, not overlapping, within the prompt, covering `wish.protected`."""
        ...
