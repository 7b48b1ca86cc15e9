"""Where something was left out, what stays must read on: words do not run together, lines stay lines.

Only tokens of the prompt can be kept, nothing can be written in. So a gap keeps one of its own line ends or spaces
where the text on its two sides would otherwise meet with less between them than either had before.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from cloud_service.refinement.units import Cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_service.refinement.contract import Prompt, Span
    from cloud_service.refinement.units import Layout


class Break(IntEnum):
    """What white space separates."""

    NOTHING = 0
    WORDS = 1
    LINES = 2
    PARAGRAPHS = 3


def mended(prompt: Prompt, protected: Sequence[Span], laid: Layout, kept: Sequence[Span]) -> tuple[Span, ...]:
    """The spans with at most one token more for each gap, and nothing of `protected` less."""
    fixed = {token for start, stop in protected for token in range(start, stop)}
    found = list(kept)
    for at in range(len(found) - 2, -1, -1):
        found[at : at + 2] = _join(prompt.pieces, laid, fixed, found[at], found[at + 1])
    return tuple(found)


def _join(pieces: Sequence[bytes], laid: Layout, fixed: set[int], before: Span, after: Span) -> list[Span]:
    (start, left), (right, _) = before, after
    if not pieces[left - 1] or not pieces[right]:
        return [before, after]  # a special token separates as it did
    said, gap, follows = laid.between(start, left), laid.between(left, right), laid.between(*after)
    now = _break(_tail(said) + _head(follows))
    was = max(_break(_tail(said) + _head(gap)), _break(_tail(gap) + _head(follows)))
    if now >= was:
        return [before, after]
    last = _text(pieces, left - 1)
    replaceable = left - 1 > start and left - 1 not in fixed and laid.cuts[left - 1] != Cut.NEVER and last.strip()
    # Tokenizers merge a full stop with what follows it, ".\n" and ".\n\n": such a token takes the other's place.
    if replaceable and _is_stop(last) and follows.startswith(last.rstrip()):
        return [(start, left - 1), after]
    joint = _joint(pieces, laid, left, right, was)
    if joint is None:
        return [before, after]
    stop = _text(pieces, joint).rstrip()
    if stop and replaceable and stop == last.rstrip():
        before = (start, left - 1)
    elif stop and now:
        return [before, after]  # a stray full stop would be worse than the lesser break
    return _merged([before, (joint, joint + 1), after])


def _joint(pieces: Sequence[bytes], laid: Layout, left: int, right: int, was: Break) -> int | None:
    """The gap's last token of nothing but such white space; else, of its two outer ones, what separates best."""
    for at in range(right - 1, left - 1, -1):
        text = _text(pieces, at)
        if text and not text.strip() and _break(text) == was:
            return at
    whole = [at for at in (left, right - 1) if Cut.NEVER not in laid.cuts[at : at + 2]]
    separating = [at for at in whole if _is_stop(_text(pieces, at)) and _tail(_text(pieces, at))]
    return max(separating, key=lambda at: (_break(_tail(_text(pieces, at))), at), default=None)


def _text(pieces: Sequence[bytes], token: int) -> str:
    return pieces[token].decode("utf-8", "replace")


def _is_stop(text: str) -> bool:
    return not any(character.isalnum() for character in text)


def _head(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def _tail(text: str) -> str:
    return text[len(text.rstrip()) :]


def _break(space: str) -> Break:
    if not space:
        return Break.NOTHING
    return Break(min(Break.PARAGRAPHS, Break.WORDS + space.replace("\r\n", "\n").count("\n")))


def _merged(spans: Sequence[Span]) -> list[Span]:
    found: list[Span] = []
    for start, stop in spans:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found
