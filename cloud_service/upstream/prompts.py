"""Prompts as text, for servers that take no ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_runtime.errors import BadInputError
from model_runtime.tokenizers import HFTokenizer


@dataclass(frozen=True, slots=True)
class PromptText:
    """Writes ids as the text that stands for them, special tokens included."""

    tokenizer: HFTokenizer

    def write(self, ids: Sequence[int], *, adds_bos: bool) -> str:
        """`adds_bos`: the reader puts a beginning-of-sequence token before any text. Raises BadInputError.

        Who reads the text takes what looks like a special token for one, and cannot know that it came from a user's
        message; so a prompt that would come to hold more of them than it has is refused.
        """
        specials = [self.tokenizer.special_text(token) for token in ids]
        text = b"".join(
            special.encode() or self.tokenizer.token_bytes(token) for token, special in zip(ids, specials, strict=True)
        ).decode(errors="replace")
        if self._specials(self.tokenizer.encode(text, special=True)) != self._specials(ids):
            raise BadInputError("the prompt holds the text of a special token, which the engine would take for one")
        bos = self.tokenizer.bos_text
        return text.removeprefix(bos) if adds_bos and bos else text

    def _specials(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if self.tokenizer.special_text(token)]
