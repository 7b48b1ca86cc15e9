"""KV caches of prompts that belong to no conversation: a prompt goes on in the one that it begins most like."""

from __future__ import annotations

from collections.abc import Sequence

from device_sdk.generation.spans import size
from device_sdk.kept import KeptKV


class SharedPrefixes:
    """For callers that send a whole conversation each time, as chat APIs do. How many stay is the Shelf's to say."""

    def __init__(self) -> None:
        self._kept: list[KeptKV] = []

    def choose(self, prompt: Sequence[int]) -> KeptKV:
        """What `prompt` is to use: the one that holds most of it, unless more than half of what that holds would be
        lost, which its own next prompt may want; else a new one."""
        # What is empty was given up, or never used.
        self._kept = [one for one in self._kept if one.in_use or len(one.reading)]
        idle = [(size(one.reading.of(prompt)), one) for one in self._kept if not one.in_use]
        shared, best = max(idle, key=lambda each: each[0], default=(0, None))
        if best is not None and 2 * shared >= len(best.reading):
            return best
        new = KeptKV()
        self._kept.append(new)
        return new
