"""Which prompts belong together: those that begin alike, and those that say so. Pure.

An instance that has served some of a family has its beginning in its KV caches, so later ones go there first. Together
with the others that such a family has overflowed to, it is that family's group (a scenario of P/D-Serve); nobody
declares groups, and one that nobody asks for any more is forgotten.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

#: Tokens that are compared at once. A prefix cache keeps nothing shorter than that.
BLOCK = 32
#: Blocks of a prompt that are looked at: what comes later is rarely shared.
_LONGEST = 256

#: One key for each block, of all tokens up to its end.
Keys = tuple[bytes, ...]


def keys_of(tokens: Sequence[int], scope: str, family: str = "") -> Keys:
    """`scope`: prompts of another one share nothing. `family`: what the client calls it, which makes it a member even
    before any of its tokens were seen; the first key."""
    state = hashlib.blake2b(scope.encode(), digest_size=8)
    keys = []
    if family:
        declared = state.copy()
        declared.update(b"\0family\0" + family.encode())
        keys.append(declared.digest())
    whole = min(len(tokens) // BLOCK, _LONGEST)
    for block in range(whole):
        state.update(array("q", tokens[block * BLOCK : (block + 1) * BLOCK]).tobytes())
        keys.append(state.copy().digest())
    return tuple(keys)


class Remembered:
    """What prompts one instance has served lately."""

    def __init__(self, most: int = 16_384) -> None:
        """`most`: blocks, the latest ones."""
        self._keys: OrderedDict[bytes, None] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._keys)

    def note(self, keys: Keys) -> None:
        # The last blocks first, so that what is forgotten first is the end of a prompt and not its beginning.
        for key in reversed(keys):
            self._keys.pop(key, None)
            self._keys[key] = None
        while len(self._keys) > self._most:
            self._keys.popitem(last=False)

    def tokens(self, keys: Keys) -> int:
        """How many tokens of a prompt were part of earlier ones; a family by name alone counts as one block."""
        known = 0
        for key in keys:
            if key not in self._keys:
                # A prompt may break off a family that only its name tells.
                if known or key is not keys[0]:
                    break
                continue
            known += 1
        return known * BLOCK

    def forget(self) -> None:
        """Its process is gone, and its KV caches with it."""
        self._keys.clear()
