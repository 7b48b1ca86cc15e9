"""Which compiled lengths a chunk of tokens is run in. Pure."""

from __future__ import annotations

from functools import lru_cache

#: A pass reads every weight however few tokens it has: below about this many it costs the same.
_WEIGHT_BOUND = 32


@lru_cache(maxsize=1024)
def tiles(count: int, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """The compiled length of each pass over `count` tokens, the longest first; the last pass is padded.

    A pass of length n costs max(n, 32) token times, and of equal costs fewer passes are taken: so a few tokens fill the
    padding of a longer pass rather than take a pass each. `lengths` are positive; there is at least one.
    """
    longest = max(lengths)
    whole, rest = divmod(count, longest)
    # best[n]: (cost, passes, first length) for n tokens that are left.
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for left in range(1, rest + 1):
        options = []
        for length in lengths:
            cost, passes, _ = best[max(left - length, 0)]
            options.append((cost + max(length, _WEIGHT_BOUND), passes + 1, -length))
        best.append(min(options))
    chosen, left = [longest] * whole, rest
    while left > 0:
        length = -best[left][2]
        chosen.append(length)
        left -= length
    return tuple(sorted(chosen, reverse=True))
