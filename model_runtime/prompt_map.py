"""Where the messages of a chat stand in their rendered prompt: characters to tokens and back.

Two sides with different tokenizers name parts of a prompt by characters; each maps them to tokens of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model_runtime.core import Message

#: Half-open.
Span: TypeAlias = tuple[int, int]
Spans: TypeAlias = tuple[Span, ...]
_Offsets: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PromptMap:
    """Characters (Unicode code points) of the contents of all messages, one after the other with nothing between, and
    tokens of the rendered prompt. Spans may come in any order and overlap; what is returned is in order and disjoint.

    Where a border falls into a token or a character, the whole of it belongs to the span. A span over several
    messages takes the template between them in.
    """

    #: Byte offsets in the rendered text, special tokens left out.
    _token_starts: _Offsets
    _token_ends: _Offsets
    _character_starts: _Offsets
    _character_ends: _Offsets
    #: In characters, one for each message.
    messages: Spans
    #: In tokens, one for each message: those that hold nothing but its content; (0, 0) where there are none.
    contents: Spans

    @property
    def tokens(self) -> int:
        return len(self._token_starts)

    @property
    def characters(self) -> int:
        return len(self._character_starts)

    def tokens_of(self, characters: Iterable[Span]) -> Spans:
        """Raises ValueError for a span beyond the contents."""
        starts, ends = self._character_starts, self._character_ends
        return _convert(characters, starts, ends, self._token_starts, self._token_ends)

    def characters_of(self, tokens: Iterable[Span]) -> Spans:
        """Raises ValueError for a span beyond the prompt. Tokens of the template alone give nothing."""
        starts, ends = self._token_starts, self._token_ends
        return _convert(tokens, starts, ends, self._character_starts, self._character_ends)


def prompt_map(messages: Sequence[Message], pieces: Sequence[bytes]) -> PromptMap | None:
    """The map of a rendered prompt; `pieces` are the bytes that each of its tokens adds (`Tokenizer.token_bytes`).

    None where the prompt does not hold the contents in order as they are, but for white space at their ends: the
    template reorders or rewrites them, or the tokenizer normalizes Unicode.
    """
    token_ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    token_starts = np.concatenate([np.zeros(min(1, len(token_ends)), np.int64), token_ends[:-1]])
    # Special tokens spell nothing and stand beside the contents, never in them.
    spelled = np.flatnonzero(token_ends > token_starts)
    text = b"".join(pieces)
    starts: list[_Offsets] = []
    ends: list[_Offsets] = []
    in_characters: list[Span] = []
    in_tokens: list[Span] = []
    position = characters = 0
    for message in messages:
        content = message["content"]
        found = _find(content, text, position)
        if found is None:
            return None
        first, offsets = found
        starts.append(first + offsets[:-1])
        ends.append(first + offsets[1:])
        in_characters.append((characters, characters + len(content)))
        characters += len(content)
        position = first + int(offsets[-1])
        begin = int(np.searchsorted(token_starts[spelled], first))
        end = int(np.searchsorted(token_ends[spelled], position, side="right"))
        in_tokens.append((int(spelled[begin]), int(spelled[end - 1]) + 1) if begin < end else (0, 0))
    none = np.zeros(0, np.int64)
    return PromptMap(
        token_starts,
        token_ends,
        np.concatenate([none, *starts]),
        np.concatenate([none, *ends]),
        tuple(in_characters),
        tuple(in_tokens),
    )


def _find(content: str, text: bytes, position: int) -> tuple[int, _Offsets] | None:
    """Where `content` begins in `text`, and the byte offset from there of each of its characters and of its end.

    Characters that the template trimmed stand for no bytes.
    """
    codes = np.frombuffer(content.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    sizes = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
    for kept in (content, content.strip()):
        first = text.find(kept.encode(errors="surrogatepass"), position)
        if first >= 0:
            skipped = content.find(kept)
            lengths = sizes.astype(np.int64)
            lengths[:skipped] = 0
            lengths[skipped + len(kept) :] = 0
            return first, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return None


def _convert(spans: Iterable[Span], starts: _Offsets, ends: _Offsets, to_starts: _Offsets, to_ends: _Offsets) -> Spans:
    converted: list[Span] = []
    for start, end in sorted(spans):
        if not 0 <= start <= end <= len(starts):
            raise ValueError(f"the span {start}…{end} is not within 0…{len(starts)}")
        if start == end:
            continue
        first = int(np.searchsorted(to_ends, starts[start], side="right"))
        last = int(np.searchsorted(to_starts, ends[end - 1], side="left"))
        if converted and first <= converted[-1][1]:
            converted[-1] = (converted[-1][0], max(last, converted[-1][1]))
        elif first < last:
            converted.append((first, last))
    return tuple(converted)
