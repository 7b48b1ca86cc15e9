"""The Engine contract over ONNX Runtime."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model_runtime.core import Cancellation, Capabilities, Engine, EngineInfo
from model_runtime.errors import BadInputError, EngineFailedError, KVMismatchError, LoadCancelled, ModelFormatError
from model_runtime.kv_bytes import pack, unpack
from model_runtime.onnx.bundle import Bundle, find_bundle
from model_runtime.onnx.dynamic import DynamicRunner
from model_runtime.onnx.files import ModelFiles, find_model, fingerprint
from model_runtime.onnx.fixed import FixedRunner
from model_runtime.onnx.layout import DecoderLayout, FixedShape, is_past, read_layout
from model_runtime.onnx.providers import CPU, hardware
from model_runtime.onnx.runner import Item, ModelSession, Runner
from model_runtime.onnx.session import Session, create_session
from model_runtime.onnx.stage import Stage
from model_runtime.passes import SequenceTable, logit_rows, tap_rows

if TYPE_CHECKING:
    from model_runtime.core import Chunk, Result, Tokenizer

_ENGINE = "onnxruntime"


class OnnxEngine(Engine):
    """A decoder in ONNX, in one of the layouts of `model_runtime.onnx.layout`; see `Engine` for the methods.

    `info.capabilities` depend on the graph: `batched` where decode steps of several sequences share a run,
    `attention_tap` where attention is not fused into one operator, `chunk_length` for fixed-shape graphs. The first
    pass with a tap loads the graph once more: run a short one early where that would come at a bad time.
    """

    def __init__(self, runner: Runner[Any], tokenizer: Tokenizer, info: EngineInfo) -> None:
        """Use `load`."""
        self._runner = runner
        self.tokenizer = tokenizer
        self.info = info
        self._table: SequenceTable[Any] = SequenceTable(info)
        layout = runner.layout
        self._kv_layout = (
            f"layers={layout.layers} kv_heads={layout.kv_heads} head_dim={layout.head_dim} dtype={layout.kv_dtype}"
        )

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        tokenizer: Tokenizer | None = None,
        providers: Sequence[str] = (CPU,),
        threads: int | None = None,
        context_length: int | None = None,
        max_sequences: int = 8,
        allow_cpu_fallback: bool = False,
        provider_options: Mapping[str, Mapping[str, str]] | None = None,
        cancellation: Cancellation | None = None,
    ) -> OnnxEngine:
        """Load the model at `path`: a folder with config.json, tokenizer.json and a graph (in it or in its folder
        `onnx`), one .onnx file beside them, or a folder that `pd-models export-npu` wrote. What an NPU's compiler makes
        of the latter is kept in its folder `compiled`, where that can be written.

        `providers` are used in this order and no others (see `model_runtime.onnx.providers`), each with its
        `provider_options` on top of what is known to be needed; `threads` None takes ONNX Runtime's own choice;
        `context_length` in tokens can only lower what the model was made for. Raises ModelNotFoundError,
        ModelFormatError, EngineUnavailableError, BadInputError (a number below 1), and LoadCancelled promptly after
        `cancellation`.
        """
        for name, value in (("threads", threads), ("context_length", context_length), ("max_sequences", max_sequences)):
            if value is not None and value < 1:
                raise BadInputError(f"{name} must be at least 1, not {value}")
        if cancellation is not None and cancellation.cancelled:
            raise LoadCancelled(f"the load of {path} was cancelled by its caller")
        options = _SessionOptions(providers, provider_options or {}, threads, allow_cpu_fallback, cancellation)
        bundle = find_bundle(path)
        files = bundle.stages[0].decoder if bundle is not None else find_model(path)
        if tokenizer is None:
            from model_runtime.tokenizers import load_tokenizer

            tokenizer = load_tokenizer(files.folder)
        runner = _bundle_runner(bundle, options) if bundle is not None else _graph_runner(files, options)
        model, layout = runner.model, runner.layout
        lengths = runner.lengths if isinstance(runner, FixedRunner) else ()
        info = EngineInfo(
            engine=_ENGINE,
            model=files.folder.resolve().name,
            architecture=files.config.architecture,
            context_length=_context_length(files, layout, context_length),
            vocabulary_size=layout.vocabulary_size,
            layers=layout.layers,
            heads=files.config.heads,
            tokenizer_fingerprint=tokenizer.fingerprint,
            template_fingerprint=tokenizer.template_fingerprint,
            model_fingerprint=fingerprint(files) if bundle is None else bundle.fingerprint,
            capabilities=Capabilities(
                # A tap's rows have no fixed size, which an NPU's compiler refuses.
                attention_tap=len(files.graph.attention) == layout.layers
                and (bundle is None or tuple(providers) == (CPU,)),
                export_kv=True,
                batched=isinstance(runner, DynamicRunner) and runner.batches,
                abort_inside_pass=True,
                chunk_length=max(lengths, default=None),
            ),
            hardware=", ".join(hardware(name) for name in providers),
            max_sequences=max_sequences,
            details={
                "graph": files.graph_path.name,
                "kv": str(layout.kv_dtype),
                "logits": "as asked for" if model.chooses_rows else "of every position",
                "threads": "all" if threads is None else str(threads),
                "nodes": ", ".join(f"{name} {len(nodes)}" for name, nodes in model.session.assignment.items()),
                **({"lengths": " ".join(map(str, lengths))} if lengths else {}),
                **({"precision": bundle.precision} if bundle is not None else {}),
            },
        )
        return cls(runner, tokenizer, info)

    def open(self) -> int:
        self._table.require_room()
        return self._table.add(self._runner.empty())

    def close(self, sequence: int) -> None:
        self._table.remove(sequence)

    def fork(self, sequence: int) -> int:
        state = self._table.get(sequence)
        self._table.require_room()
        return self._table.add(self._runner.fork(state))

    def truncate(self, sequence: int, length: int) -> None:
        state = self._table.check_truncate(sequence, length)
        self._table.replace(sequence, self._runner.truncate(state, length))

    def length(self, sequence: int) -> int:
        length: int = self._table.get(sequence).length
        return length

    def export_kv(self, sequence: int) -> bytes:
        state = self._table.get(sequence)
        payload = np.ascontiguousarray(self._runner.keys_and_values(state))
        return pack(
            payload.data if payload.size else b"",
            engine=_ENGINE,
            fingerprint=self.info.model_fingerprint,
            layout=self._kv_layout,
            tokens=state.length,
        )

    def import_kv(self, data: bytes) -> int:
        self._table.require_room()
        tokens, payload = unpack(data, engine=_ENGINE, fingerprint=self.info.model_fingerprint, layout=self._kv_layout)
        layout = self._runner.layout
        if len(payload) != tokens * layout.kv_bytes_per_token:
            raise KVMismatchError(f"the KV is damaged: {len(payload)} bytes are not those of {tokens} tokens")
        if tokens > self.info.context_length:
            raise KVMismatchError(f"the KV holds {tokens} tokens and this engine's context {self.info.context_length}")
        shape = (layout.layers, 2, layout.kv_heads, tokens, layout.head_dim)
        return self._table.add(self._runner.restore(np.frombuffer(payload, layout.kv_dtype).reshape(shape)))

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        tokens = self._table.check_chunks(chunks)
        items: list[Item[Any]] = [
            Item(self._table.get(chunk.sequence), ids, logit_rows(chunk), chunk.tap, tap_rows(chunk))
            for chunk, ids in zip(chunks, tokens, strict=True)
        ]
        try:
            done = self._runner.run(items, cancellation)
            gone = [item.state for item in items]
            resting = self._table.but({chunk.sequence for chunk in chunks})
            parted = [(sequence, self._runner.part(state, gone)) for sequence, state in resting]
        except (EngineFailedError, MemoryError) as error:
            raise self._table.fail(str(error)) from error
        for chunk, (state, _) in zip(chunks, done, strict=True):
            self._table.replace(chunk.sequence, state)
        for sequence, state in parted:
            self._table.replace(sequence, state)
        return [result for _, result in done]

    def shutdown(self) -> None:
        if self._table.shut_down():
            del self._runner
            # ONNX Runtime's objects are freed with their last reference; a cycle would keep gigabytes alive.
            gc.collect()


@dataclass(frozen=True, slots=True)
class _SessionOptions:
    """What every session of an engine is made with."""

    providers: Sequence[str]
    provider_options: Mapping[str, Mapping[str, str]]
    threads: int | None
    allow_cpu_fallback: bool
    cancellation: Cancellation | None

    def model(self, files: ModelFiles, compiled: Path | None = None) -> ModelSession:
        return ModelSession(
            files,
            self.providers,
            threads=self.threads,
            allow_cpu_fallback=self.allow_cpu_fallback,
            cancellation=self.cancellation,
            provider_options=self.provider_options,
            compiled=compiled,
        )

    def host(self, files: ModelFiles) -> Session:
        return create_session(
            files,
            providers=(CPU,),
            threads=self.threads,
            allow_cpu_fallback=False,
            cancellation=self.cancellation,
        )


def _graph_runner(files: ModelFiles, options: _SessionOptions) -> Runner[Any]:
    model = options.model(files)
    layout = read_layout(model.session.inputs, model.session.outputs, files.config, str(files.graph_path))
    if layout.fixed is None:
        return DynamicRunner(model, layout)
    return FixedRunner([Stage(model, layout, layout.fixed)], layout, layout.fixed.slots)


def _bundle_runner(bundle: Bundle, options: _SessionOptions) -> FixedRunner:
    stages, layouts = [], []
    for files in bundle.stages:
        host = options.host(files.host)
        model = options.model(files.decoder, bundle.folder / "compiled")
        # Seen from outside, a stage takes what its host takes and the cache.
        inputs = [*host.inputs, *(value for value in model.session.inputs if is_past(value.name))]
        name = str(files.decoder.graph_path)
        layout = read_layout(inputs, model.session.outputs, files.decoder.config, name)
        if layout.fixed != FixedShape(files.tokens, bundle.manifest.slots):
            raise ModelFormatError(f"{name} is compiled to {layout.fixed}, and npu.json says otherwise: export anew")
        stages.append(Stage(model, layout, layout.fixed, host))
        layouts.append(layout)
    if len({(each.kv_dtype, each.past_names, each.kv_heads, each.head_dim) for each in layouts}) > 1:
        raise ModelFormatError(f"the graphs of {bundle.folder} disagree about their cache: export the model anew")
    return FixedRunner(stages, layouts[0], bundle.manifest.slots)


def _context_length(files: ModelFiles, layout: DecoderLayout, asked: int | None) -> int:
    """The least of what the caller asks for, the model was made for and the graph holds."""
    slots = layout.fixed.slots if layout.fixed is not None else None
    limits = [limit for limit in (asked, files.config.context_length, slots) if limit is not None]
    if not limits:
        raise ModelFormatError(
            f"{files.folder / 'config.json'} does not say max_position_embeddings: pass context_length"
        )
    return min(limits)
