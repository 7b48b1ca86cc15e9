"""Whether what the cloud sends keeps to the constraint that the answer was asked under.

A service that does not hold it, or an engine behind one, costs its part of the answer, never the answer's form: the
device goes on from what was right.
"""

from __future__ import annotations

from model_runtime.constraint import Watch
from model_runtime.core import Tokenizer
from wire_protocol.messages import Tokens


class CloudWatch:
    """One generation's; each attempt begins it anew."""

    def __init__(self, watch: Watch, tokenizer: Tokenizer | None) -> None:
        self._watch = watch
        self._tokenizer = tokenizer

    def begin(self, output: tuple[int, ...] | None, text: str) -> None:
        """An attempt goes on from the output so far: as ids, or None and as text."""
        self._watch.restart(text.encode() if output is None else self._data(output))

    def objection(self, message: Tokens) -> str | None:
        """What is wrong with the next tokens; None where nothing is."""
        special = self._tokenizer is not None and any(not self._tokenizer.token_bytes(token) for token in message.ids)
        if special or not self._watch.push(message.data or self._data(message.ids)):
            return "the service sent what breaks the constraint of this answer"
        return None

    def unfinished(self) -> str | None:
        """What is wrong with an answer that ends here; None where nothing is."""
        return None if self._watch.complete else "the service ended the answer before its constraint was satisfied"

    def _data(self, ids: tuple[int, ...]) -> bytes:
        return b"" if self._tokenizer is None else b"".join(map(self._tokenizer.token_bytes, ids))
