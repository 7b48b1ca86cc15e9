"""Looking into ONNX files and adding to them, checked against the onnx package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.onnx.edits import LOGITS_START, TAP_END, TAP_START, edit, tap_output
from model_runtime.onnx.graph import Graph, Node, map_file, read_graph
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
    assert graph.outputs == tuple(output.name for output in reference.output)
    assert list(graph.inputs) == [tensor.name for tensor in reference.input]
    assert graph.inputs["input_ids"] == ((1, 12) if "fixed" in name else (None, None))
    assert graph.head == expected[-1]
    assert graph.attention == tuple(f"model.layers.{layer}.self_attn.attention" for layer in range(3))


def test_an_edited_graph_is_valid_onnx_and_otherwise_the_same(tiny_model: Callable[[str], Path]) -> None:
    path = tiny_model("llama") / "model.onnx"
    graph, before = read_graph(path), onnx.load(str(path), load_external_data=False).graph
    edited = onnx.load_from_string(edit(map_file(path), head=graph.head, attention=graph.attention))
    onnx.checker.check_model(_alone(edited))
    inputs, outputs = ([t.name for t in tensors] for tensors in (edited.graph.input, edited.graph.output))
    assert set(inputs) - {t.name for t in before.input} == {LOGITS_START, TAP_START, TAP_END}
    assert outputs[len(before.output) :] == [tap_output(layer) for layer in range(3)]
    *kept, head = before.node
    assert list(edited.graph.node[: len(kept)]) == kept
    [new_head] = [node for node in edited.graph.node if "logits" in node.output]
    assert [new_head.op_type, *new_head.input[1:]] == [head.op_type, *head.input[1:]]
    tensors = {tensor.name: tensor for tensor in edited.graph.initializer}
    assert all(tensors[tensor.name] == tensor for tensor in before.initializer)


def test_nothing_to_add_changes_nothing(tiny_model: Callable[[str], Path]) -> None:
    path = tiny_model("llama") / "model.onnx"
    assert edit(map_file(path), head=None, attention=()) == path.read_bytes()


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
    assert Graph(nodes, {}, (), ()).attention == ("first", "second")


DECODER = (
    Node("Mul", ("x", "scale"), ("hidden",), None),
    Node("MatMul", ("hidden", "weights"), ("product",), None),
    Node("Cast", ("product",), ("logits",), None),
)
QUANTIZED = (
    Node("Mul", ("x", "scale"), ("hidden",), None),
    Node("DynamicQuantizeLinear", ("hidden",), ("q", "q_scale", "q_zero"), None),
    Node("MatMulInteger", ("q", "weights", "q_zero", "zero"), ("whole",), None),
    Node("Cast", ("whole",), ("product",), None),
    Node("Mul", ("q_scale", "weight_scale"), ("scales",), None),
    Node("Mul", ("product", "scales"), ("logits",), None),
)


@pytest.mark.parametrize("nodes", [DECODER, QUANTIZED])
def test_the_head_is_where_the_last_product_begins(nodes: tuple[Node, ...]) -> None:
    outputs = ("logits", "present.0.key")
    assert Graph(nodes, {}, outputs, ()).head == nodes[1]
    # What also feeds another output is left alone, and so is what is not a product.
    also = Node("Identity", (nodes[1].outputs[0],), ("present.0.key",), None)
    assert Graph((*nodes, also), {}, outputs, ()).head is None
    assert Graph((Node("Reshape", ("hidden", "shape"), ("logits",), None),), {}, outputs, ()).head is None
    assert Graph(nodes[1:], {}, outputs, ()).head is None


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
