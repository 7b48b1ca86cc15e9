"""An engine without a model: it costs what a hardware profile says, and hardly any CPU time. Emulated, always."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model_runtime.core import Capabilities, Engine, EngineInfo, Result
from model_runtime.errors import UnsupportedError
from model_runtime.passes import SequenceTable, logit_rows
from model_runtime.testing import ScriptedTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_runtime.core import Cancellation, Chunk

#: What it says, over and over.
WORD = 256


@dataclass(slots=True)
class _Length:
    length: int = 0


class CostEngine(Engine):
    """Says one word for ever. A pass over chunks of (tokens in context, new tokens) takes `pass_s(chunks)` seconds, by
    calling `sleep` with them."""

    def __init__(
        self,
        pass_s: Callable[[list[tuple[int, int]]], float],
        sleep: Callable[[float], object],
        *,
        context_length: int = 8192,
        max_sequences: int = 64,
        kv_tokens: int | None = None,
    ) -> None:
        self.tokenizer = ScriptedTokenizer()
        self._pass_s = pass_s
        self._sleep = sleep
        #: Seconds in passes so far.
        self.busy = 0.0
        size = self.tokenizer.vocabulary_size
        self._logits = np.zeros((1, size), dtype=np.float32)
        self._logits[0, WORD] = 1.0
        self.info = EngineInfo(
            engine="emulated",
            model="costs-only",
            architecture="none",
            context_length=context_length,
            vocabulary_size=size,
            layers=1,
            heads=1,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            template_fingerprint=self.tokenizer.template_fingerprint,
            model_fingerprint="costs-only",
            capabilities=Capabilities(export_kv=False, batched=True),
            hardware="emulated: no hardware",
            max_sequences=max_sequences,
            kv_tokens=kv_tokens,
        )
        self._table: SequenceTable[_Length] = SequenceTable(self.info)

    def open(self) -> int:
        return self._table.add(_Length())

    def close(self, sequence: int) -> None:
        self._table.remove(sequence)

    def fork(self, sequence: int) -> int:
        return self._table.add(_Length(self.length(sequence)))

    def truncate(self, sequence: int, length: int) -> None:
        self._table.check_truncate(sequence, length).length = length

    def length(self, sequence: int) -> int:
        return self._table.get(sequence).length

    def export_kv(self, sequence: int) -> bytes:
        raise UnsupportedError("there is no KV here")

    def import_kv(self, data: bytes) -> int:
        raise UnsupportedError("there is no KV here")

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        states = [self._table.get(chunk.sequence) for chunk in chunks]
        seconds = self._pass_s([(state.length, len(chunk.tokens)) for state, chunk in zip(states, chunks, strict=True)])
        self.busy += seconds
        self._sleep(seconds)
        for state, chunk in zip(states, chunks, strict=True):
            state.length += len(chunk.tokens)
        return [Result(self._logits[: logit_rows(chunk)]) for chunk in chunks]

    def shutdown(self) -> None:
        self._table.shut_down()
