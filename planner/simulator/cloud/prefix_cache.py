"""What an instance still knows of earlier prompts: their prefixes, block by block, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class PrefixCache:
    """Holds `capacity` tokens in blocks of `block_tokens`. A block is named by the hash of the prompt up to its end."""

    def __init__(self, capacity: int, block_tokens: int) -> None:
        self._most = capacity // block_tokens
        self._block_tokens = block_tokens
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def match(self, hashes: Sequence[int], prompt: int) -> int:
        """Prompt tokens that need no prefill. The last token always does: its logits are the answer's first."""
        blocks = 0
        for block in hashes:
            if block not in self._blocks:
                break
            blocks += 1
        return min(blocks * self._block_tokens, prompt - 1)

    def add(self, hashes: Sequence[int]) -> None:
        """A prompt was prefilled. Its first blocks are the last to go."""
        for block in reversed(hashes[: self._most]):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)
