"""The prompt as the device prefills it: a cursor, and what is still to come. Pure.

A refinement changes what lies ahead of the cursor. What goes into the KV cache is a subsequence of the prompt in its
own order, at contiguous positions; the protected spans are always part of it.

The cursor goes back in two cases only, both before anything was sampled. An earlier turn of the conversation left out
what this turn's question needs; or the prompt is longer than the cache, and what was read of it meanwhile takes the
room of what matters.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from device_sdk.generation.spans import Span, Spans, common, outside, size, union, within


class PromptTrack:
    """`tokens` in the device's ids. `protected` always stays, and so does the last token, whose logits give the
    answer's first one.

    `read`: positions that the KV cache holds from an earlier turn. `room`: the most tokens of the prompt that the cache
    may hold, `read_ahead` of them before a refinement says which; None: the whole prompt fits.
    """

    def __init__(
        self,
        tokens: Sequence[int],
        protected: Iterable[Span] = (),
        *,
        read: Spans = (),
        room: int | None = None,
        read_ahead: int = 0,
    ) -> None:
        self.tokens = tuple(tokens)
        length = len(self.tokens)
        self.room = room
        self._read_ahead = read_ahead
        self.protected = within(union(protected, [(length - 1, length)]), 0, length)
        #: What was handed out, in order: the n-th of these positions is the n-th in the KV cache.
        self.taken: Spans = within(read, 0, max(length - 1, 0))
        #: Of the tokens in the KV cache, those that earlier turns have read.
        self.reused = size(self.taken)
        self._cursor = self.taken[-1][1] if self.taken else 0
        #: What earlier turns left out.
        self.gaps: Spans = outside(self.taken, self._cursor)
        #: Whether a refinement (or the lack of one) has yet to say what is to be read: until then the last token is
        #: held back, so that no answer rests on less than its question needs.
        self.undecided = bool(self.gaps) or (room is not None and length > room)
        self._look_ahead([(0, length)])

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def left(self) -> int:
        """Tokens still to be handed out."""
        return self._left

    @property
    def left_out(self) -> int:
        """Tokens behind the cursor that earlier turns left out, and of which nothing is decided yet."""
        return size(self.gaps)

    @property
    def fed(self) -> int:
        """Tokens handed out."""
        return size(self.taken)

    @property
    def done(self) -> bool:
        return self._left == 0

    @property
    def held(self) -> bool:
        """Whether nothing may be handed out before it is decided what is to be read."""
        return self.undecided and self._free == 0

    @property
    def kept_share(self) -> float:
        """Of all tokens, those handed out and still to come."""
        return (self.fed + self._left) / len(self.tokens) if self.tokens else 1.0

    def take(self, count: int) -> tuple[int, ...]:
        """The next tokens, `count` at most; the cursor is behind them from here on."""
        if self.undecided:
            count = min(count, self._free)
        taken: list[Span] = []
        for start, end in self._ahead:
            if count == 0:
                break
            stop = min(end, start + count)
            taken.append((start, stop))
            count -= stop - start
        if not taken:
            return ()
        self._cursor = taken[-1][1]
        self._look_ahead(self._ahead)
        self.taken = union(self.taken, taken)
        return tuple(itertools.chain.from_iterable(self.tokens[start:stop] for start, stop in taken))

    def refine(self, keep: Iterable[Span]) -> bool:
        """From the cursor on, keep these spans and the protected ones; the rest is left out. False, and nothing is
        changed, where that has no room.

        The newest refinement decides alone about what lies ahead: what an earlier one left out comes back if it says
        so. Spans beyond the prompt stand for nothing.
        """
        kept = within(union(keep, self.protected), 0, len(self.tokens))
        back = self._turn_back(kept)
        if not self._fits(kept, back):
            return False
        self.undecided, self.gaps = False, ()
        self.taken, self._cursor = within(self.taken, 0, back), back
        self.reused = min(self.reused, size(self.taken))
        self._look_ahead(kept)
        return True

    def rewind(self) -> None:
        """Nothing is in the KV cache any more: what was handed out is ahead again, and what earlier turns left out."""
        ahead = union(self.taken, self._ahead, self.gaps)
        self.taken, self.gaps, self.reused, self._cursor = (), (), 0, 0
        self.undecided = self.undecided and self.room is not None and len(self.tokens) > self.room
        self._look_ahead(ahead)

    def _turn_back(self, kept: Spans) -> int:
        """Where to read on from: the cursor, or before it."""
        missing = common(self.gaps, kept, self._cursor)
        back = missing[0][0] if missing else self._cursor
        if self.undecided and not self._fits(kept, back):
            surplus = common(self.taken, outside(kept, back), back)
            return surplus[0][0] if surplus else back
        return back

    def _fits(self, kept: Spans, back: int) -> bool:
        if self.room is None:
            return True
        return size(within(self.taken, 0, back)) + size(within(kept, back, len(self.tokens))) <= self.room

    @property
    def _free(self) -> int:
        """What may be handed out while it is undecided."""
        free = max(self._left - 1, 0)
        return (
            free
            if self.room is None or len(self.tokens) <= self.room
            else min(free, max(self._read_ahead - self.fed, 0))
        )

    def _look_ahead(self, spans: Iterable[Span]) -> None:
        self._ahead = within(spans, self._cursor, len(self.tokens))
        self._left = size(self._ahead)
        #: Tokens of the protected spans from the cursor on.
        self.protected_left = size(within(self.protected, self._cursor, len(self.tokens)))
