"""The output of one generation as its listener gets it: ids at once, text cut at a stop string. Pure."""

from __future__ import annotations

from cloud_service.scheduler.jobs import Emitted, Job
from model_runtime.core import Tokenizer
from model_runtime.text import StopStrings


class Output:
    """Where only ids are wanted, every token leaves as it is sampled, stop string or not: the client assembles the
    text and cuts it. Where text is wanted, tokens whose bytes may be the beginning of a stop string wait until that
    is settled, and nothing from a stop string on ever leaves.
    """

    def __init__(self, job: Job, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._wants_text = job.wants_text
        self._reads_bytes = job.wants_text or bool(job.stop)
        # Stop strings are looked for in bytes, one character for each, so that a character split between two tokens
        # needs no special care; UTF-8 guarantees that no match begins inside a character.
        self._stops = StopStrings([stop.encode().decode("latin-1") for stop in job.stop]) if job.stop else None
        self._next = 0
        self._ids: list[int] = []
        self._data = bytearray()
        #: Bytes at the end of `_data` that may begin a stop string.
        self._held = 0
        #: Whether the answer holds a stop string and is over.
        self.stopped = False
        for token in job.output if job.stop else ():
            self._read(token)
        self._ids.clear()
        self._data.clear()

    def push(self, token: int) -> Emitted | None:
        """The answer's next token; returns what may leave now."""
        if not self._reads_bytes:
            self._next += 1
            return Emitted(self._next - 1, (token,))
        self._read(token)
        self._ids.append(token)
        if self._wants_text and self._held and not self.stopped:
            return None
        return self._emit()

    def end(self) -> Emitted | None:
        """No more is coming: what was held back leaves after all."""
        return self._emit()

    def _read(self, token: int) -> None:
        data = self._tokenizer.token_bytes(token)
        self._data += data
        if self._stops is None:
            return
        before = self._held + len(data)
        safe, self.stopped = self._stops.push(data.decode("latin-1"))
        self._held = before - len(safe)
        if self.stopped:
            del self._data[len(self._data) - min(self._held, len(self._data)) :]
            self._held = 0

    def _emit(self) -> Emitted | None:
        if not self._ids or (self._wants_text and not self._data):
            return None
        emitted = Emitted(self._next, tuple(self._ids), bytes(self._data) if self._wants_text else b"")
        self._next += len(self._ids)
        self._ids.clear()
        self._data.clear()
        return emitted
