"""Looking into ONNX files and adding to them, checked against the onnx package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.onnx.graph import TAP_END, TAP_START, Graph, Node, read_graph, tap_output, with_taps
from model_runtime.onnx.wire import WireError, fields, write_bytes, write_int

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("name", ["model.onnx", "model.fixed.onnx"])
def test_reads_what_the_onnx_package_reads(tiny_model: Callable[[str], Path], name: str) -> None:
    path = tiny_model("qwen2") / name
    graph, reference = read_graph(path), onnx.load(str(path), load_external_data=False).graph
    axes = [{a.name: a.i for a in node.attribute}.get("axis") for node in reference.node]
    expected = [
        Node(node.op_type, tuple(node.input), tuple(node.output), axis)
        for node, axis in zip(reference.node, axes, strict=True)
    ]
    assert list(graph.nodes) == expected
    assert graph.external == ("model.safetensors",)
    assert not graph.quantizes_activations
    assert graph.attention() == tuple(f"model.layers.{layer}.self_attn.attention" for layer in range(3))


def test_a_tapped_graph_is_valid_onnx_and_otherwise_the_same(tiny_model: Callable[[str], Path]) -> None:
    original = (tiny_model("llama") / "model.onnx").read_bytes()
    attention = read_graph(tiny_model("llama") / "model.onnx").attention()
    tapped = onnx.load_from_string(with_taps(original, attention))
    onnx.checker.check_model(_alone(tapped))
    before = onnx.load_from_string(original).graph
    assert list(tapped.graph.node[: len(before.node)]) == list(before.node)
    assert [tensor.name for tensor in tapped.graph.input[len(before.input) :]] == [TAP_START, TAP_END]
    assert [tensor.name for tensor in tapped.graph.output[len(before.output) :]] == [tap_output(i) for i in range(3)]


def _alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights in other files stand as inputs, so that the checker needs none of them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            copy.graph.initializer.append(tensor)
    return copy


def test_only_a_softmax_that_weighs_values_is_attention() -> None:
    nodes = (
        Node("Softmax", ("router",), ("experts",), -1),
        Node("TopK", ("experts", "k"), ("best", "which"), None),
        Node("Softmax", ("scores",), ("first",), 3),
        Node("Cast", ("first",), ("first_half",), None),
        Node("MatMul", ("first_half", "values"), ("mixed",), None),
        Node("Softmax", ("more",), ("second",), None),
        Node("IsNaN", ("second",), ("nan",), None),
        Node("Where", ("nan", "zero", "second"), ("safe",), None),
        Node("MatMul", ("safe", "values"), ("mixed_too",), None),
        Node("Softmax", ("across",), ("heads",), 1),
        Node("MatMul", ("heads", "values"), ("other",), None),
    )
    assert Graph(nodes, ()).attention() == ("first", "second")


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise_anything_else(data: bytes) -> None:
    try:
        values = list(fields(memoryview(data)))
    except WireError:
        return
    assert all(number >= 0 for number, _ in values)


@given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 2**64 - 1) | st.binary(max_size=300))))
def test_what_is_written_is_read(entries: list[tuple[int, int | bytes]]) -> None:
    data = b"".join(write_int(n, v) if isinstance(v, int) else write_bytes(n, v) for n, v in entries)
    read = [(n, v if isinstance(v, int) else bytes(v)) for n, v in fields(memoryview(data))]
    assert read == entries
