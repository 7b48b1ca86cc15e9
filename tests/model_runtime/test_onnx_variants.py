"""Decoders as hubs publish them: half precision, quantized, with fused attention. Compared with the plain graph."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from demos.training import export_hf
from model_runtime.core import AttentionTap, Chunk, Logits
from model_runtime.errors import EngineFailedError, KVMismatchError, UnsupportedError
from model_runtime.onnx import OnnxEngine
from model_runtime.onnx.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from demos.training.architecture import DecoderConfig

SOME = [int(token) for token in np.random.default_rng(1).integers(0, 258, 40)]


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain.onnx` with its weights inside, and what is made of it."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path_factory.mktemp("variants") / "tiny"))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "plain.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return folder


def load(path: Path) -> OnnxEngine:
    return OnnxEngine.load(path, threads=1)


def run(engine: OnnxEngine) -> tuple[np.ndarray, list[int]]:
    """The logits of a prompt, and what is said after it."""
    assert engine.info.details["logits"] == "as asked for"
    sequence = engine.open()
    engine.forward([Chunk(sequence, SOME[:15], Logits.NONE)])
    [prompt] = engine.forward([Chunk(sequence, SOME[15:], Logits.ALL)])
    said = [int(prompt.logits[-1].argmax())]
    for _ in range(10):
        [result] = engine.forward([Chunk(sequence, said[-1:])])
        said.append(int(result.logits[0].argmax()))
    return prompt.logits, said


def test_weights_inside_the_graph(folder: Path) -> None:
    with load(folder / "model.onnx") as beside, load(folder / "plain.onnx") as inside:
        expected, said = run(beside)
        logits, same = run(inside)
        [result] = inside.forward([Chunk(inside.open(), SOME, tap=AttentionTap((0,), 3))])
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert same == said
    assert result.attention is not None


def test_half_precision(folder: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load(str(folder / "plain.onnx")), keep_io_types=False)
    onnx.save(half, str(folder / "model_fp16.onnx"))
    with load(folder / "plain.onnx") as full, load(folder / "model_fp16.onnx") as engine:
        expected, said = run(full)
        logits, same = run(engine)
        assert engine.info.details["kv"] == "float16"
        [result] = engine.forward([Chunk(sequence := engine.open(), SOME, tap=AttentionTap((0, 2), 3))])
        moved = engine.import_kv(engine.export_kv(sequence))
        results = engine.forward([Chunk(sequence, [1]), Chunk(moved, [1])])
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=0.05)
    assert same == said
    assert result.attention is not None
    assert result.attention.dtype == np.float32
    np.testing.assert_allclose(results[0].logits, results[1].logits, atol=0.02)


def test_weights_in_8_bits(folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(folder / "plain.onnx", folder / "model_int8.onnx", weight_type=QuantType.QInt8)
    with load(folder / "plain.onnx") as full, load(folder / "model_int8.onnx") as engine:
        expected, _ = run(full)
        logits, _ = run(engine)
        # Activations share a scale, so sequences that share a run would change each other.
        assert not engine.info.capabilities.batched
        first, second = engine.open(), engine.open()
        alone = engine.forward([Chunk(first, SOME[:5])])[0]
        together = engine.forward([Chunk(first, [9]), Chunk(second, [8])])[1]
        engine.truncate(second, 0)
        again = engine.forward([Chunk(second, [8])])[0]
    assert alone.logits.shape == (1, 272)
    np.testing.assert_array_equal(together.logits, again.logits)
    correlation = np.corrcoef(logits.ravel(), expected.ravel())[0, 1]
    assert correlation > 0.98


def test_weights_in_4_bits(folder: Path) -> None:
    model = onnx.load(str(folder / "plain.onnx"))
    rounded = onnx.load(str(folder / "plain.onnx"))
    values = _pack_weights(model.graph)
    for tensor in rounded.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(folder / "model_q4.onnx"))
    onnx.save(rounded, str(folder / "rounded.onnx"))
    with load(folder / "rounded.onnx") as full, load(folder / "model_q4.onnx") as engine:
        expected, said = run(full)
        logits, same = run(engine)
        assert engine.info.capabilities.batched
        assert engine.info.capabilities.attention_tap
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    assert same == said


def _pack_weights(graph: onnx.GraphProto, block: int = 16) -> dict[str, np.ndarray]:
    """Every product with a constant becomes MatMulNBits: 4 bits for a weight and a scale for each block of 16.
    Returns the constants that this rounding leaves."""
    rounded = {}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in constants:
            continue
        weights = numpy_helper.to_array(constants[node.input[1]]).T
        outputs, inputs = weights.shape
        blocks = weights.reshape(outputs, inputs // block, block)
        scales = np.abs(blocks).max(axis=2, keepdims=True) / 7
        levels = (np.clip(np.round(blocks / scales), -8, 7) + 8).astype(np.uint8)
        rounded[node.input[1]] = ((levels.astype(np.float32) - 8) * scales).reshape(outputs, inputs).T
        packed = levels[..., 0::2] | levels[..., 1::2] << 4
        name = node.output[0]
        graph.initializer.append(numpy_helper.from_array(packed, f"{name}.packed"))
        graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32).ravel(), f"{name}.scales"))
        inputs_now = [node.input[0], f"{name}.packed", f"{name}.scales"]
        shape = {"K": inputs, "N": outputs, "bits": 4, "block_size": block}
        node.CopyFrom(helper.make_node("MatMulNBits", inputs_now, [name], domain="com.microsoft", **shape))
    return rounded


def test_a_graph_that_computes_only_the_logits_asked_for(folder: Path) -> None:
    model = onnx.load(str(folder / "plain.onnx"))
    graph = model.graph
    for name, value in (("keep.shape", [1]), ("keep.axes", [1]), ("keep.end", [2**62])):
        graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    [at] = [index for index, node in enumerate(graph.node) if node.output[0] == "logits"]
    for node in (
        helper.make_node("Neg", ["num_logits_to_keep"], ["keep.negative"]),
        helper.make_node("Reshape", ["keep.negative", "keep.shape"], ["keep.start"]),
        helper.make_node("Slice", ["model.norm.out", "keep.start", "keep.end", "keep.axes"], ["keep.rows"]),
    ):
        graph.node.insert(at, node)
        at += 1
    graph.node[at].input[0] = "keep.rows"
    graph.input.append(helper.make_tensor_value_info("num_logits_to_keep", onnx.TensorProto.INT64, []))
    graph.output[0].type.tensor_type.shape.dim[1].dim_param = "kept"
    onnx.save(model, str(folder / "keep.onnx"))
    with load(folder / "plain.onnx") as plain, load(folder / "keep.onnx") as engine:
        expected, said = run(plain)
        logits, same = run(engine)
        assert engine.forward([Chunk(engine.open(), SOME, Logits.NONE)])[0].logits.shape == (0, 272)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert same == said


def test_fused_attention_runs_and_has_no_tap(folder: Path) -> None:
    """GroupQueryAttention, as ONNX Runtime's own model builder writes it; without an input for positions."""
    _write_fused(folder, "fused.onnx", positions=160)
    with load(folder / "plain.onnx") as plain, load(folder / "fused.onnx") as engine:
        expected, said = run(plain)
        logits, same = run(engine)
        assert not engine.info.capabilities.attention_tap
        # Its padding is told by lengths, not by a mask: only a mask lets sequences of unlike lengths share a run.
        assert not engine.info.capabilities.batched
        sequence = engine.open()
        with pytest.raises(UnsupportedError, match="no attention"):
            engine.forward([Chunk(sequence, SOME, tap=AttentionTap((0,), 3))])
        assert engine.length(sequence) == 0
        with pytest.raises(KVMismatchError, match="fingerprint"):
            engine.import_kv(plain.export_kv(plain.open()))
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    assert same == said


def test_a_pass_that_breaks_ends_the_engine(folder: Path) -> None:
    # Its table of rotations is shorter than the context that config.json promises.
    _write_fused(folder, "short.onnx", positions=8)
    with load(folder / "short.onnx") as engine:
        sequence = engine.open()
        engine.forward([Chunk(sequence, SOME[:8])])
        with pytest.raises(EngineFailedError, match="ONNX Runtime"):
            engine.forward([Chunk(sequence, SOME[8:])])
        for call in (engine.open, lambda: engine.forward([Chunk(sequence, [1])]), lambda: engine.length(sequence)):
            with pytest.raises(EngineFailedError, match="must not be used again"):
                call()


def _write_fused(folder: Path, name: str, positions: int) -> None:
    config, _ = export_hf.load(folder)
    model = onnx.load(str(folder / "plain.onnx"))
    _fuse_attention(model.graph, config, positions)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(folder / name))


def _fuse_attention(graph: onnx.GraphProto, config: DecoderConfig, positions: int) -> None:
    half = config.head_dim // 2
    angles = np.arange(positions)[:, None] * config.rope_theta ** -(np.arange(half) / half)
    for name, values in (("cos", np.cos(angles)), ("sin", np.sin(angles))):
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), f"fused.{name}"))
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "fused.one"))
    nodes = [
        helper.make_node("ReduceSum", ["attention_mask", "fused.one"], ["fused.count"], keepdims=0),
        helper.make_node("Sub", ["fused.count", "fused.one"], ["fused.last"]),
        helper.make_node("Cast", ["fused.last"], ["fused.lengths"], to=onnx.TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["fused.shape"], start=1),
        helper.make_node("Squeeze", ["fused.shape"], ["fused.keys"]),
        helper.make_node("Cast", ["fused.keys"], ["fused.total"], to=onnx.TensorProto.INT32),
    ]
    fused = {}
    for layer in range(config.layers):
        prefix = f"model.layers.{layer}.self_attn"
        past, present = f"past_key_values.{layer}", f"present.{layer}"
        fused[f"{prefix}.merged"] = helper.make_node(
            "GroupQueryAttention",
            [
                *(f"{prefix}.{part}_proj.product" for part in "qkv"),
                *(f"{past}.{part}" for part in ("key", "value")),
                *("fused.lengths", "fused.total", "fused.cos", "fused.sin"),
            ],
            [f"{prefix}.merged", f"{present}.key", f"{present}.value"],
            domain="com.microsoft",
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
            do_rotary=1,
        )
    produced = {name for node in fused.values() for name in node.output}
    for node in graph.node:
        if node.output[0] in fused:
            nodes.append(fused[node.output[0]])
        elif not produced.intersection(node.output):
            nodes.append(node)
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    inputs = [tensor for tensor in graph.input if tensor.name in needed]
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field, values in ((graph.node, kept[::-1]), (graph.input, inputs), (graph.initializer, initializers)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)


def test_decode_steps_of_several_sequences_share_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    original = Session.run

    def counting(self: Session, inputs: dict, *rest: object) -> list:
        runs.append(inputs["input_ids"].shape())
        return original(self, inputs, *rest)

    monkeypatch.setattr(Session, "run", counting)
    with load(folder / "model.onnx") as engine:
        sequences = [engine.open() for _ in range(3)]
        for sequence, length in zip(sequences, (3, 30, 9), strict=True):
            engine.forward([Chunk(sequence, SOME[:length])])
        runs.clear()
        for _ in range(2):
            engine.forward([Chunk(sequence, [1]) for sequence in sequences])
        engine.forward([Chunk(sequences[0], [1, 2]), Chunk(sequences[1], [1]), Chunk(sequences[2], [1])])
    assert runs == [[3, 1], [3, 1], [2, 1], [1, 2]]
