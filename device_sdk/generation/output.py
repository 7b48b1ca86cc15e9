"""The output: one append-only list of tokens, each with its source, and the text they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from device_sdk.report import Source, SourceSpan
from model_runtime.text import StopStrings, TextAssembler


@dataclass(frozen=True, slots=True)
class Piece:
    """One unit of output: a token, or what the cloud sent at once where text travels (`token` is None)."""

    token: int | None
    text: str
    source: Source


class Output:
    """Append-only. `closed` once a stop string was met: nothing is appended after it."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.pieces: list[Piece] = []
        self.closed = False
        self._assembler = TextAssembler()
        self._raw: list[str] = []
        self._stops = StopStrings(stop)

    def __len__(self) -> int:
        return len(self.pieces)

    def append(self, token: int | None, data: bytes, source: Source) -> None:
        """Add a token (`token`), or bytes that travelled as text (`token` is None), made by `source`."""
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last.source is not source and (token is None or last.token is None):
            # The other side goes on from text, so from the last complete character: half of one is not kept.
            self._assembler = TextAssembler()
        complete = self._assembler.push(data)
        self._raw.append(complete)
        text, self.closed = self._stops.push(complete)
        self.pieces.append(Piece(token, text, source))

    def end(self) -> None:
        """No more is coming: what was held back (an incomplete character, the beginning of a stop string) becomes
        part of the last piece's text."""
        if self.closed:
            return
        tail, self.closed = self._stops.push(self._assembler.flush())
        if not self.closed:
            tail += self._stops.flush()
        self.closed = True
        if tail and self.pieces:
            last = self.pieces[-1]
            self.pieces[-1] = Piece(last.token, last.text + tail, last.source)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(piece.token for piece in self.pieces if piece.token is not None)

    def text(self, count: int | None = None) -> str:
        """The visible text of the first `count` pieces."""
        return "".join(piece.text for piece in self.pieces[:count])

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
