"""Fakes for tests of what is built on model_runtime: an engine without a model, a tokenizer without a file.

`ScriptedEngine` keeps the whole Engine contract (KV semantics, validation, cancellation, batches, taps) and costs
microseconds a token. What it says is a pure function of the token history: either a toy language of its own, or a
script. Faults and delays can be put in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model_runtime import kv_bytes
from model_runtime.core import Capabilities, Engine, EngineInfo, FloatArray, Result
from model_runtime.emulated import sleep
from model_runtime.errors import Cancelled
from model_runtime.passes import SequenceTable, logit_rows, raise_if_cancelled, tap_rows
from model_runtime.vocabulary import VocabularyTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from model_runtime.core import AttentionTap, Cancellation, Chunk
    from model_runtime.emulated import Sleep
    from model_runtime.templates import Segment

#: The words of the toy language. Some hold characters of several bytes.
WORDS = (
    " the", " a", " of", " and", " to", " in", " is", " was", " at", " on", " with", " for", " by", " from", " that",
    " it", " crew", " pump", " valve", " north", " gate", " café", " naïve", " grün", " 東京", " ✓", " —", ".", ",",
)  # fmt: skip


class ScriptedTokenizer(VocabularyTokenizer):
    """Longest match over a list of words, single bytes for the rest; ChatML. Any text encodes.

    Ids: 0–255 are the bytes, then the words, then `<|im_start|>` and `<|im_end|>` (which ends an answer). Two with
    different words have different fingerprints. `template`: another one than ChatML.
    """

    def __init__(self, words: Sequence[str] = WORDS, *, template: str | None = None) -> None:
        pieces = [bytes([value]) for value in range(256)] + [word.encode() for word in words]
        self._ids = {piece: token for token, piece in enumerate(pieces)}
        self._longest = max(map(len, pieces))
        self.im_start, self.im_end = len(pieces), len(pieces) + 1
        self._specials = {"<|im_start|>": self.im_start, "<|im_end|>": self.im_end}
        super().__init__(
            (*pieces, b"", b""),
            specials={token: text for text, token in self._specials.items()},
            eos=[self.im_end],
            template=template,
            bos_text="",
            eos_text="<|im_end|>",
        )

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        ids: list[int] = []
        while special and (found := self._first_special(text)) is not None:
            before, text = text[: found[0]], text[found[0] + len(found[1]) :]
            ids += [*self._encode_plain(before.encode()), self._specials[found[1]]]
        return ids + self._encode_plain(text.encode())

    def _encode_segment(self, segment: Segment) -> list[int]:
        return self.encode(segment.text, special=segment.trusted)

    def _first_special(self, text: str) -> tuple[int, str] | None:
        return min(((text.find(name), name) for name in self._specials if name in text), default=None)

    def _encode_plain(self, data: bytes) -> list[int]:
        ids: list[int] = []
        position = 0
        while position < len(data):
            piece = next(
                piece
                for size in range(min(self._longest, len(data) - position), 0, -1)
                if (piece := data[position : position + size]) in self._ids
            )
            ids.append(self._ids[piece])
            position += len(piece)
        return ids


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, by the number of the pass, counted from 0 (`len(engine.passes)` is the next one)."""

    #: This pass raises EngineFailedError, and the engine is broken from then on.
    fail_at: int | None = None
    #: This pass never ends but by cancellation. Without a Cancellation to end it, it fails instead.
    hang_at: int | None = None


class ScriptedEngine(Engine):
    """An Engine whose next token is a pure function of the token history.

    - `script=None`: a toy language. Logits depend on the whole history and on `seed`; an answer is about
      `answer_length` tokens long. Engines with equal arguments are the same model.
    - `script=[…]`: says these ids, then ends. Where it stands is found from the history alone: the longest beginning
      of the script that the history ends with. So it survives truncation, forks and a hand-over in mid-answer.

    `delay` gives the seconds that a pass over these chunks takes, spent in `sleep` (which may advance a virtual
    clock instead; it returns whether it was cancelled). `faults` may be replaced at any time. `passes` holds the
    chunks of each pass that was begun.
    """

    def __init__(
        self,
        *,
        tokenizer: ScriptedTokenizer | None = None,
        script: Sequence[int] | None = None,
        seed: int = 0,
        answer_length: int = 64,
        context_length: int = 8192,
        max_sequences: int = 8,
        layers: int = 2,
        heads: int = 2,
        name: str = "scripted",
        faults: Faults = Faults(),
        delay: Callable[[Sequence[Chunk]], float] | None = None,
        sleep: Sleep = sleep,
    ) -> None:
        self.tokenizer = tokenizer if tokenizer is not None else ScriptedTokenizer()
        self.faults = faults
        self.passes: list[tuple[Chunk, ...]] = []
        self._delay = delay
        self._sleep = sleep
        said = None if script is None else tuple(script)
        self._model = _Model(self.tokenizer, said, seed, answer_length)
        identity = (self.tokenizer.fingerprint, said, seed, answer_length, layers, heads)
        self.info = EngineInfo(
            engine="scripted",
            model=name,
            architecture="scripted",
            context_length=context_length,
            vocabulary_size=self.tokenizer.vocabulary_size,
            layers=layers,
            heads=heads,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            template_fingerprint=self.tokenizer.template_fingerprint,
            model_fingerprint=hashlib.sha256(repr(identity).encode()).hexdigest(),
            capabilities=Capabilities(attention_tap=True, export_kv=True, batched=True, abort_inside_pass=True),
            hardware="no hardware: scripted",
            max_sequences=max_sequences,
        )
        self._table: SequenceTable[_History] = SequenceTable(self.info)

    def open(self) -> int:
        return self._table.add(_History())

    def close(self, sequence: int) -> None:
        self._table.remove(sequence)

    def fork(self, sequence: int) -> int:
        return self._table.add(self._table.get(sequence))

    def truncate(self, sequence: int, length: int) -> None:
        self._table.replace(sequence, self._table.check_truncate(sequence, length).first(length))

    def length(self, sequence: int) -> int:
        return self._table.get(sequence).length

    def export_kv(self, sequence: int) -> bytes:
        state = self._table.get(sequence)
        payload = np.asarray(state.tokens, dtype="<i4").tobytes()
        return kv_bytes.pack(
            payload, engine=self.info.engine, fingerprint=self.info.model_fingerprint, layout="ids", tokens=state.length
        )

    def import_kv(self, data: bytes) -> int:
        self._table.require_room()
        _, payload = kv_bytes.unpack(
            data, engine=self.info.engine, fingerprint=self.info.model_fingerprint, layout="ids"
        )
        tokens = tuple(np.frombuffer(payload, dtype="<i4").tolist())
        return self._table.add(self._model.read(_History(), tokens))

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        checked = self._table.check_chunks(chunks)
        raise_if_cancelled(cancellation)
        self._run_into_faults(chunks, cancellation)
        if self._delay is not None and self._sleep(self._delay(chunks), cancellation):
            raise Cancelled("the pass was cancelled by its caller; every sequence is as before it")
        results = []
        for chunk, tokens in zip(chunks, checked, strict=True):
            history = self._model.read(self._table.get(chunk.sequence), tuple(tokens.tolist()))
            self._table.replace(chunk.sequence, history)
            points = history.points[len(history.points) - logit_rows(chunk) :]
            logits = np.zeros((len(points), self.info.vocabulary_size), dtype=np.float32)
            for row, point in enumerate(points):
                logits[row] = self._model.logits(point)
            attention = None
            if chunk.tap is not None:
                attention = self._model.attention(history, chunk.tap, tap_rows(chunk), self.info.heads)
            results.append(Result(logits, attention))
        return results

    def shutdown(self) -> None:
        self._table.shut_down()

    def _run_into_faults(self, chunks: Sequence[Chunk], cancellation: Cancellation | None) -> None:
        number = len(self.passes)
        self.passes.append(tuple(chunks))
        if number == self.faults.fail_at:
            raise self._table.fail(f"an injected fault at pass {number}")
        if number == self.faults.hang_at:
            if cancellation is None:
                raise self._table.fail(f"an injected hang at pass {number}, without a Cancellation that could end it")
            while not cancellation.wait(3600):
                pass
            raise_if_cancelled(cancellation)


@dataclass(frozen=True, slots=True)
class _Point:
    """What the next token depends on."""

    #: Of all tokens so far, in order.
    digest: int = 0
    #: How many tokens of the script's beginning the history ends with.
    matched: int = 0


@dataclass(frozen=True, slots=True)
class _History:
    """The tokens of a sequence, and the point after each number of them."""

    tokens: tuple[int, ...] = ()
    points: tuple[_Point, ...] = (_Point(),)

    @property
    def length(self) -> int:
        return len(self.tokens)

    def first(self, length: int) -> _History:
        return _History(self.tokens[:length], self.points[: length + 1])


class _Model:
    """The "weights": what the toy language or the script says after a history."""

    def __init__(self, tokenizer: ScriptedTokenizer, script: tuple[int, ...] | None, seed: int, length: int) -> None:
        self.script = script
        self._seed = seed
        self._answer_length = length
        self._eos = tokenizer.im_end
        self._ids = np.arange(tokenizer.vocabulary_size, dtype=np.uint64)
        # Words are likely, single bytes are not, special tokens are never said but where an answer ends.
        self._bias = np.zeros(tokenizer.vocabulary_size, dtype=np.float32)
        self._bias[:256] = -8.0
        self._bias[[tokenizer.im_start, tokenizer.im_end]] = -30.0
        self._restart = _prefix_function(script or ())

    def read(self, history: _History, tokens: tuple[int, ...]) -> _History:
        point = history.points[-1]
        points = []
        for token in tokens:
            digest = (point.digest * 6364136223846793005 + token + 1442695040888963407) % 2**64
            point = _Point(digest, self._advance(point.matched, token))
            points.append(point)
        return _History(history.tokens + tokens, history.points + tuple(points))

    def logits(self, point: _Point) -> FloatArray:
        key = np.uint64((point.digest ^ self._seed * 0x9E3779B97F4A7C15) % 2**64)
        noise = _mix(self._ids ^ _mix(key))
        logits = (noise >> np.uint64(40)).astype(np.float32) * np.float32(6 / 2**24) + self._bias
        if self.script is not None:
            logits[self._eos if point.matched == len(self.script) else self.script[point.matched]] = 30.0
        elif int(_mix(key)[0]) % self._answer_length == 0:
            logits[self._eos] = 30.0
        return logits

    def attention(self, history: _History, tap: AttentionTap, rows: int, heads: int) -> FloatArray:
        """Looks at the same token elsewhere, and a little at everything."""
        tokens = np.asarray(history.tokens)
        queries = np.arange(len(tokens) - rows, len(tokens))
        keys = np.arange(len(tokens))
        noise = _mix(queries[:, None].astype(np.uint64) << np.uint64(32) | keys.astype(np.uint64))
        likes = np.float32(3) * (tokens[queries][:, None] == tokens) + (noise % np.uint64(1000)) / np.float32(1000)
        weights: FloatArray = np.where(keys <= queries[:, None], np.exp(likes), 0).astype(np.float32)
        # Heads and layers differ in how sharply they look.
        sharpness = 1 + 0.5 * np.arange(heads) + np.asarray(tap.layers)[:, None]
        sharp = weights[None, None] ** sharpness[:, :, None, None].astype(np.float32)
        normal: FloatArray = sharp / sharp.sum(axis=-1, keepdims=True)
        return normal

    def _advance(self, matched: int, token: int) -> int:
        """The longest beginning of the script that the history ends with, one token on (Knuth–Morris–Pratt)."""
        if self.script is None:
            return 0
        while matched and (matched == len(self.script) or self.script[matched] != token):
            matched = self._restart[matched - 1]
        return matched + (bool(self.script) and self.script[matched] == token)


def _prefix_function(script: tuple[int, ...]) -> list[int]:
    """For each beginning of the script, the longest shorter beginning that it ends with."""
    restart = [0] * len(script)
    for end in range(1, len(script)):
        size = restart[end - 1]
        while size and script[size] != script[end]:
            size = restart[size - 1]
        restart[end] = size + (script[size] == script[end])
    return restart


def _mix(values: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """splitmix64: well-mixed bits of each value."""
    mixed = np.atleast_1d(values) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
