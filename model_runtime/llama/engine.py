"""The llama.cpp engine."""

from __future__ import annotations

import heapq
from array import array
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from model_runtime import kv_bytes
from model_runtime.core import Capabilities, Engine, EngineInfo
from model_runtime.errors import (
    Cancelled,
    ContextOverflowError,
    EngineFailedError,
    KVMismatchError,
    UnsupportedError,
)
from model_runtime.llama.context import Context, ContextSettings, Decoded
from model_runtime.llama.model import Model
from model_runtime.llama.options import (
    DEFAULT_CONTEXT,
    check_arguments,
    check_tap_layers,
    default_cells,
    usable_cpus,
)
from model_runtime.llama.taps import AttentionTapper
from model_runtime.llama.tokenizer import LlamaTokenizer
from model_runtime.llama.work import LlamaSequence, Pass, lay_out
from model_runtime.passes import SequenceTable, raise_if_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from model_runtime.core import Cancellation, Chunk, Result
    from model_runtime.llama.context import Precision


class LlamaEngine(Engine):
    """llama.cpp, through llama-cpp-python's low-level API. Made by `load`."""

    def __init__(
        self,
        info: EngineInfo,
        tokenizer: LlamaTokenizer,
        model: Model,
        context: Context,
        tapper: AttentionTapper | None,
        tap_layers: tuple[int, ...],
        resources: ExitStack,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self._context = context
        self._tapper = tapper
        self._tap_layers = tap_layers
        self._resources = resources
        self._window = model.window
        self._keeps_all_keys = model.keeps_all_keys
        self._sequences: SequenceTable[LlamaSequence] = SequenceTable(info)
        self._free_slots = list(range(info.max_sequences))
        precision, flash = info.details["kv_precision"], info.details["flash_attention"]
        self._kv_layout = f"llama.cpp {model.library.version}, {precision}, flash attention {flash}"

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        context_length: int | None = None,
        max_sequences: int = 8,
        kv_tokens: int | None = None,
        threads: int | None = None,
        gpu_layers: int = 0,
        flash_attention: bool = True,
        kv_precision: Precision = "f16",
        tap_layers: tuple[int, ...] | Literal["all"] = (),
        cancellation: Cancellation | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> LlamaEngine:
        """Load a GGUF file.

        `context_length`: the longest sequence in tokens; no more than the model was trained for (None: that, but at
        most 8,192). `kv_tokens`: tokens of all sequences together, in one cache that they share (None: four full
        contexts, fewer with fewer sequences); a fork costs nothing until it differs. `threads`: None takes every CPU
        this process may use. `gpu_layers`: layers on the GPU, negative for all. `flash_attention`: used where the
        hardware has it for this model. `kv_precision`: with "f32" and without flash attention (which works in f16
        whatever is stored) logits agree with those of other engines to about 0.001, otherwise to about 0.1.

        `tap_layers`: layers whose attention may be asked for, or "all". They make every pass slower by about a
        microsecond for each node of the graph, so the default is none.

        `progress` is called in this thread with a fraction from 0 to 1. Raises ModelNotFoundError, ModelFormatError,
        EngineUnavailableError, LoadCancelled, LoadError (out of memory), BadInputError (an argument out of range),
        UnsupportedError (a layer that cannot be tapped), TemplateError (a chat template that does not compile).
        """
        check_arguments(context_length, max_sequences, kv_tokens, threads, kv_precision)
        threads = threads or usable_cpus()
        with ExitStack() as stack:
            model = Model.load(path, gpu_layers=gpu_layers, cancellation=cancellation, progress=progress)
            stack.callback(model.free)
            api = model.library.api
            layers, heads = int(api.llama_model_n_layer(model.handle)), int(api.llama_model_n_head(model.handle))
            tokenizer = LlamaTokenizer(model)
            stack.callback(tokenizer.close)
            length = min(context_length or DEFAULT_CONTEXT, model.trained_context)
            tapper = None
            if tap_layers == "all":
                tap_layers = tuple(range(layers))
            if tap_layers:
                check_tap_layers(tap_layers, layers, model)
                tapper = AttentionTapper(model.library, tap_layers, heads)
            settings = ContextSettings(
                cells=kv_tokens or default_cells(model, length, max_sequences),
                sequences=max_sequences,
                threads=threads,
                flash_attention=flash_attention,
                kv_precision=kv_precision,
                on_gpu=gpu_layers != 0,
            )
            context = Context(model, settings, tapper.callback if tapper else None)
            stack.callback(context.free)
            if tapper is not None:
                tapper.probe(context)
            info = EngineInfo(
                engine="llama.cpp",
                model=model.metadata("general.name") or path.stem,
                architecture=model.architecture,
                context_length=min(length, context.cells),
                vocabulary_size=tokenizer.vocabulary_size,
                layers=layers,
                heads=heads,
                tokenizer_fingerprint=tokenizer.fingerprint,
                template_fingerprint=tokenizer.template_fingerprint,
                model_fingerprint=model.fingerprint(),
                capabilities=Capabilities(
                    attention_tap=bool(tap_layers),
                    batched=True,
                    # llama.cpp aborts on the CPU only, and what an aborted pass left must be possible to take back.
                    abort_inside_pass=gpu_layers == 0 and model.keeps_all_keys,
                ),
                hardware=model.library.hardware,
                max_sequences=max_sequences,
                kv_tokens=context.cells,
                details={
                    "quantization": model.quantization,
                    "parameters": str(model.parameters),
                    "threads": str(threads),
                    "gpu_layers": str(gpu_layers),
                    "flash_attention": "where possible" if flash_attention else "off",
                    "kv_precision": kv_precision,
                    "kv_tokens": str(context.cells),
                    "tap_layers": ",".join(map(str, tap_layers)),
                    "llama.cpp": model.library.version,
                },
            )
            return cls(info, tokenizer, model, context, tapper, tap_layers, stack.pop_all())

    def open(self) -> int:
        self._sequences.require_room()
        return self._sequences.add(LlamaSequence(heapq.heappop(self._free_slots), cells=self._no_cells()))

    def close(self, sequence: int) -> None:
        state = self._sequences.remove(sequence)
        self._context.forget(state.slot, 0)
        heapq.heappush(self._free_slots, state.slot)

    def fork(self, sequence: int) -> int:
        source = self._sequences.get(sequence)
        self._sequences.require_room()
        slot = heapq.heappop(self._free_slots)
        self._context.copy(source.slot, slot)
        cells = None if source.cells is None else source.cells[:]
        return self._sequences.add(LlamaSequence(slot, source.length, cells))

    def truncate(self, sequence: int, length: int) -> None:
        """As in the contract. Raises UnsupportedError where the model's memory cannot go back that far: recurrent
        layers keep no past states, sliding windows drop what has left them. Length 0 always works."""
        state = self._sequences.check_truncate(sequence, length)
        if length == state.length:
            return
        if not self._rewind(state, length):
            raise UnsupportedError(
                f"{self.info.model} ({self.info.architecture}) cannot go back from {state.length} to {length} tokens: "
                "its memory holds no earlier state. Truncate to 0 and prefill again"
            )
        state.length = length
        if state.cells is not None:
            del state.cells[length:]
        elif length == 0:
            state.cells = self._no_cells()

    def length(self, sequence: int) -> int:
        return self._sequences.get(sequence).length

    def export_kv(self, sequence: int) -> bytes:
        state = self._sequences.get(sequence)
        return kv_bytes.pack(
            self._context.export(state.slot),
            engine=self.info.engine,
            fingerprint=self.info.model_fingerprint,
            layout=self._kv_layout,
            tokens=state.length,
        )

    def import_kv(self, data: bytes) -> int:
        """As in the contract; ContextOverflowError where the tokens find no room. The attention of an imported
        sequence cannot be tapped."""
        self._sequences.require_room()
        tokens, payload = kv_bytes.unpack(
            data, engine=self.info.engine, fingerprint=self.info.model_fingerprint, layout=self._kv_layout
        )
        self._require_length(tokens)
        slot = self._free_slots[0]
        if tokens and (problem := self._context.restore(slot, payload)):
            if self._held() + tokens > self._context.cells:
                raise self._full(tokens)
            raise KVMismatchError(f"llama.cpp does not take this KV: {problem}")
        heapq.heappop(self._free_slots)
        return self._sequences.add(LlamaSequence(slot, tokens, None if tokens else self._no_cells()))

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        """As in the contract. A pass that finds no room in the shared KV cache raises ContextOverflowError."""
        tokens = self._sequences.check_chunks(chunks)
        states = [self._sequences.get(chunk.sequence) for chunk in chunks]
        self._check_taps(chunks, states)
        self._check_room(sum(map(len, tokens)))
        raise_if_cancelled(cancellation)
        if not chunks:
            return []
        work = lay_out(chunks, tokens, states, self.info)
        try:
            cells = self._run(work, cancellation)
        except BaseException as error:
            self._roll_back(states, error)
            raise
        for state, start, end in zip(states, work.bounds, work.bounds[1:], strict=False):
            state.length += end - start
            if state.cells is not None:
                state.cells.extend(cells[start:end])
        return work.results

    def shutdown(self) -> None:
        if self._sequences.shut_down():
            self._resources.close()

    def _run(self, work: Pass, cancellation: Cancellation | None) -> array[int]:
        """Returns the cells of the pass's tokens, where they are tracked."""
        inside = cancellation if self.info.capabilities.abort_inside_pass else None
        if self._tapper is not None:
            self._tapper.begin(work.taps)
        for start in range(0, len(work.tokens), self._context.batch_limit):
            part = slice(start, start + self._context.batch_limit)
            outputs = [token for token in work.logits if part.start <= token < part.stop]
            if self._keeps_all_keys:
                raise_if_cancelled(cancellation)
            decoded = self._context.decode(
                work.tokens[part], work.positions[part], work.slots[part], [token - start for token in outputs], inside
            )
            match decoded:
                case Decoded.NO_ROOM:
                    raise self._full(len(work.tokens))
                case Decoded.ABORTED:
                    raise Cancelled("the pass was cancelled by its caller; every sequence is as before it")
                case Decoded.DONE:
                    for token in outputs:
                        self._context.read_logits(token - start, work.logits[token])
        return array("q") if self._tapper is None else self._tapper.finish()

    def _roll_back(self, states: Sequence[LlamaSequence], error: BaseException) -> None:
        """Make a pass that ended early undone. Raises EngineFailedError where that cannot be done."""
        if isinstance(error, EngineFailedError):
            raise self._sequences.fail(str(error)) from error
        if not all(self._rewind(state, state.length) for state in states):
            raise self._sequences.fail(f"a pass ended early ({error}) and could not be undone") from error

    def _rewind(self, state: LlamaSequence, length: int) -> bool:
        """Keep `length` tokens in memory; whether that could be done. Nothing has changed where it could not."""
        # A window at `length` reaches back to this position; all-seeing layers have everything anyway.
        reach = max(0, length - self._window)
        if self._window and length and self._context.first_position(state.slot) > reach:
            return False
        return self._context.forget(state.slot, length)

    def _check_taps(self, chunks: Sequence[Chunk], states: Sequence[LlamaSequence]) -> None:
        for chunk, state in zip(chunks, states, strict=True):
            if chunk.tap is None:
                continue
            if not set(chunk.tap.layers) <= set(self._tap_layers):
                raise UnsupportedError(
                    f"the attention of layers {chunk.tap.layers} is asked for, and this engine was loaded with "
                    f"tap_layers={self._tap_layers}: load it with all layers that you want to tap"
                )
            if state.cells is None:
                raise UnsupportedError(
                    f"sequence {chunk.sequence} was imported: where its keys lie is not known, so its attention cannot "
                    "be tapped. Prefill it here instead"
                )

    def _check_room(self, new: int) -> None:
        # One batch that finds no room changes nothing. With several, a later one could find none, and these models
        # could not go back: be sure before, counting what forks share twice.
        if self._keeps_all_keys or new <= self._context.batch_limit:
            return
        if self._held() + new > self._context.cells:
            raise self._full(new)

    def _require_length(self, tokens: int) -> None:
        if tokens > self.info.context_length:
            raise ContextOverflowError(
                f"the KV holds {tokens} tokens, more than this engine's context of {self.info.context_length}"
            )

    def _held(self) -> int:
        return sum(state.length for state in self._sequences)

    def _full(self, new: int) -> ContextOverflowError:
        return ContextOverflowError(
            f"{new} more tokens find no room: the KV cache of {self._context.cells} tokens is shared by all sequences, "
            f"and they hold {self._held()} (forks share). Close or truncate some, or load with a larger kv_tokens"
        )

    def _no_cells(self) -> array[int] | None:
        return None if self._tapper is None else array("q")
