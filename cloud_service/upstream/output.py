"""What a server streams, as a listener of the scheduler gets it. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

from cloud_service.scheduler.jobs import Emitted, Job
from cloud_service.scheduler.output import Output
from cloud_service.upstream.stream import Piece
from model_runtime.core import Tokenizer
from model_runtime.text import StopStrings

Over: TypeAlias = Literal["eos", "stop"]


class IdOutput:
    """Of a server that gives ids: the same as of an engine in this process."""

    def __init__(self, job: Job, tokenizer: Tokenizer) -> None:
        self.ids: list[int] = []
        self.over: Over | None = None
        self._grant = job.grant
        self._tokenizer = tokenizer
        self._output = Output(job, tokenizer)
        if self._output.stopped:
            self.over = "stop"

    @property
    def given(self) -> int:
        return len(self.ids)

    def push(self, piece: Piece, room: int) -> list[Emitted]:
        """`room`: tokens that may still come, whatever the server sends."""
        emitted = []
        for token in piece.ids[:room]:
            if token in self._tokenizer.eos_ids:
                self.over = "eos"
                break
            self.ids.append(token)
            part = self._output.push(token)
            if part is not None:
                emitted.append(part)
            if self._output.stopped:
                self.over = "stop"
                break
        return emitted

    def end(self) -> Emitted | None:
        return self._output.end()


class TextOutput:
    """Of a server that gives text alone: a piece of text counts as one token, however many it was there."""

    def __init__(self, job: Job) -> None:
        #: All that came, what waits included.
        self.text = ""
        self.over: Over | None = None
        self._next = 0
        self._stops = StopStrings(job.stop) if job.stop else None

    @property
    def given(self) -> int:
        return self._next

    def push(self, piece: Piece, room: int) -> list[Emitted]:
        """As above. Text that may begin a stop string waits."""
        if not piece.text or room <= 0:
            return []
        self.text += piece.text
        safe, stopped = (piece.text, False) if self._stops is None else self._stops.push(piece.text)
        if stopped:
            self.over = "stop"
        return self._emit(safe)

    def end(self) -> Emitted | None:
        rest = "" if self._stops is None or self.over == "stop" else self._stops.flush()
        return next(iter(self._emit(rest)), None)

    def _emit(self, text: str) -> list[Emitted]:
        if not text:
            return []
        self._next += 1
        return [Emitted(self._next - 1, (), text.encode(), pieces=1)]
