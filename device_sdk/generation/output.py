"""The output: one append-only list of tokens, each with its source, and the text they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from device_sdk.report import Source, SourceSpan
from model_runtime.text import StopStrings, TextAssembler
from model_runtime.thinking import ThinkingReader


@dataclass(frozen=True, slots=True)
class Piece:
    """One unit of output: a token, or what the cloud sent at once where text travels (`token` is None)."""

    token: int | None
    text: str
    source: Source
    #: Of the side that made it.
    tokens: int = 1
    #: What it adds to the thinking.
    thought: str = ""
    #: It is part of the thinking, tags included: nothing that the user waits for.
    hidden: bool = False


class Output:
    """Append-only. `closed` once a stop string was met in the answer: nothing is appended after it. `thinking` tells a
    reasoning model's thinking from its answer; None: all is answer."""

    def __init__(self, stop: Sequence[str], thinking: ThinkingReader | None = None) -> None:
        self.pieces: list[Piece] = []
        self.closed = False
        self._assembler = TextAssembler()
        self._raw: list[str] = []
        self._stops = StopStrings(stop)
        self._thinking = thinking

    def __len__(self) -> int:
        return len(self.pieces)

    def append(self, token: int | None, data: bytes, source: Source, tokens: int = 1) -> None:
        """Add a token (`token`), or bytes that travelled as text (`token` is None) and stand for so many `tokens`, made
        by `source`."""
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last.source is not source and (token is None or last.token is None):
            # The other side goes on from text, so from the last complete character: half of one is not kept.
            self._assembler = TextAssembler()
        complete = self._assembler.push(data)
        self._raw.append(complete)
        if self._thinking is None:
            text, self.closed = self._stops.push(complete)
            self.pieces.append(Piece(token, text, source, tokens))
            return
        hidden = not self._thinking.answering
        parts = self._thinking.push(complete, token)
        text, self.closed = self._stops.push(parts.answer)
        hidden = not text and (hidden or not self._thinking.answering)
        self.pieces.append(Piece(token, text, source, tokens, parts.thought, hidden))

    def end(self) -> None:
        """No more is coming: what was held back (an incomplete character, the beginning of a stop string) becomes
        part of the last piece's text."""
        if self.closed:
            return
        rest, thought = self._assembler.flush(), ""
        if self._thinking is not None:
            some, more = self._thinking.push(rest), self._thinking.end()
            rest, thought = some.answer + more.answer, some.thought + more.thought
        tail, self.closed = self._stops.push(rest)
        if not self.closed:
            tail += self._stops.flush()
        self.closed = True
        if (tail or thought) and self.pieces:
            last = self.pieces[-1]
            hidden = last.hidden and not tail
            self.pieces[-1] = replace(last, text=last.text + tail, thought=last.thought + thought, hidden=hidden)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(piece.token for piece in self.pieces if piece.token is not None)

    def text(self, count: int | None = None) -> str:
        """The visible text of the first `count` pieces."""
        return "".join(piece.text for piece in self.pieces[:count])

    def thought(self, count: int | None = None) -> str:
        """The thinking in the first `count` pieces."""
        return "".join(piece.thought for piece in self.pieces[:count])

    def hidden(self, first: int = 0) -> int:
        """Tokens of thinking from piece `first` on."""
        return sum(piece.tokens for piece in self.pieces[first:] if piece.hidden)

    def raw_text(self) -> str:
        """All complete characters so far, stop strings or not: what an engine continues from."""
        return "".join(self._raw)

    def spans(self, count: int | None = None) -> tuple[SourceSpan, ...]:
        spans: list[SourceSpan] = []
        for index, piece in enumerate(self.pieces[:count]):
            if spans and spans[-1].source is piece.source:
                spans[-1] = SourceSpan(piece.source, spans[-1].start, index + 1)
            else:
                spans.append(SourceSpan(piece.source, index, index + 1))
        return tuple(spans)
