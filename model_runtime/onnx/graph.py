"""What an ONNX file holds beyond its inputs and outputs, and how an attention tap is added to it.

A tap needs the attention probabilities, which a decoder exported op by op computes in one `Softmax` for each layer.
Three things are appended to the graph: a `Slice` of the wanted query rows of each, a `Cast` to float32, and the
outputs. Protobuf merges a message that is written twice, so appending is really appending: the file's own bytes, and
with them its weights, stay as they are.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_runtime.errors import ModelFormatError, ModelNotFoundError
from model_runtime.onnx.wire import Value, WireError, fields, message, text, write_bytes, write_int

if TYPE_CHECKING:
    from pathlib import Path

TAP_START = "pd_device.tap.start"
TAP_END = "pd_device.tap.end"

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TYPE, _ATTRIBUTE_IS_INT = 1, 3, 20, 2
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_INT64, _TENSOR_NAME, _TENSOR_EXTERNAL = 1, 2, 7, 8, 13
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2, 1, 1, 2
_SHAPE_DIM, _DIM_VALUE = 1, 1
_FLOAT, _INT64 = 1, 7

# What may stand between an attention's probabilities and their product with the values.
_PASSES_ON = frozenset({"Cast", "Identity", "Dropout", "Where", "IsNaN", "DynamicQuantizeLinear"})
_PRODUCTS = frozenset({"MatMul", "MatMulInteger", "Einsum"})


@dataclass(frozen=True, slots=True)
class Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    #: The `axis` attribute, where it has one.
    axis: int | None


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes of a file, without weights, and the files beside it that hold some of them."""

    nodes: tuple[Node, ...]
    external: tuple[str, ...]

    @property
    def quantizes_activations(self) -> bool:
        """One scale for a whole activation tensor: what shares a pass changes each other's numbers slightly."""
        return any(node.op == "DynamicQuantizeLinear" for node in self.nodes)

    def attention(self) -> tuple[str, ...]:
        """The tensors of attention probabilities in the order of the graph, which is that of the layers."""
        consumers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                consumers.setdefault(name, []).append(node)

        def multiplied(name: str, depth: int) -> bool:
            return any(
                node.op in _PRODUCTS
                or (depth > 0 and node.op in _PASSES_ON and any(multiplied(out, depth - 1) for out in node.outputs))
                for node in consumers.get(name, ())
            )

        return tuple(
            node.outputs[0]
            for node in self.nodes
            if node.op == "Softmax" and node.axis in (None, -1, 3) and multiplied(node.outputs[0], 3)
        )


def read_graph(path: Path) -> Graph:
    """Raises ModelNotFoundError, ModelFormatError for what is no ONNX file or is cut short."""
    try:
        with path.open("rb") as file:
            # Never closed by hand: it goes with the last view of it, which an error's traceback may still hold.
            return _read_model(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path} is not there") from None
    except (WireError, ValueError) as error:
        raise ModelFormatError(
            f"{path} is no ONNX file, or is damaged or cut short ({error}): download or export it again"
        ) from error


def tap_output(layer: int) -> str:
    return f"pd_device.attention.{layer}"


def with_taps(model: bytes, attention: tuple[str, ...]) -> bytes:
    """The model with inputs `TAP_START` and `TAP_END` (int64, one element each: which query rows) and an output
    `tap_output(layer)`, (batch, heads, rows, keys) float32, for each layer. An empty range costs nothing."""
    axes = "pd_device.tap.axes"
    extra = [
        write_bytes(_GRAPH_INPUT, _tensor_info(TAP_START, _INT64, (1,))),
        write_bytes(_GRAPH_INPUT, _tensor_info(TAP_END, _INT64, (1,))),
        write_bytes(
            _GRAPH_INITIALIZER,
            write_int(_TENSOR_DIMS, 1)
            + write_int(_TENSOR_TYPE, _INT64)
            + write_int(_TENSOR_INT64, 2)
            + write_bytes(_TENSOR_NAME, axes),
        ),
    ]
    for layer, probabilities in enumerate(attention):
        rows, output = f"pd_device.attention_rows.{layer}", tap_output(layer)
        to_float = write_bytes(_ATTRIBUTE_NAME, "to") + write_int(_ATTRIBUTE_INT, _FLOAT)
        to_float += write_int(_ATTRIBUTE_TYPE, _ATTRIBUTE_IS_INT)
        extra += [
            write_bytes(_GRAPH_NODE, _node("Slice", (probabilities, TAP_START, TAP_END, axes), rows)),
            write_bytes(_GRAPH_NODE, _node("Cast", (rows,), output) + write_bytes(_NODE_ATTRIBUTE, to_float)),
            write_bytes(_GRAPH_OUTPUT, _tensor_info(output, _FLOAT, (None,) * 4)),
        ]
    return model + write_bytes(_MODEL_GRAPH, b"".join(extra))


def _node(op: str, inputs: tuple[str, ...], output: str) -> bytes:
    named = b"".join(write_bytes(_NODE_INPUT, name) for name in inputs)
    return named + write_bytes(_NODE_OUTPUT, output) + write_bytes(_NODE_NAME, output) + write_bytes(_NODE_OP, op)


def _tensor_info(name: str, element: int, shape: tuple[int | None, ...]) -> bytes:
    dims = (write_bytes(_SHAPE_DIM, b"" if size is None else write_int(_DIM_VALUE, size)) for size in shape)
    tensor = write_int(_TENSOR_ELEMENT, element) + write_bytes(_TENSOR_SHAPE, b"".join(dims))
    return write_bytes(_VALUE_NAME, name) + write_bytes(_VALUE_TYPE, write_bytes(_TYPE_TENSOR, tensor))


def _read_model(model: memoryview) -> Graph:
    nodes: list[Node] = []
    external: dict[str, None] = {}
    found = False
    for number, value in fields(model):
        if number != _MODEL_GRAPH:
            continue
        found = True
        for inner, entry in fields(message(value)):
            if inner == _GRAPH_NODE:
                nodes.append(_read_node(message(entry)))
            elif inner == _GRAPH_INITIALIZER and (location := _read_location(message(entry))):
                external[location] = None
    if not found:
        raise WireError("it holds no graph")
    return Graph(tuple(nodes), tuple(external))


def _read_node(node: memoryview) -> Node:
    inputs, outputs, op, axis = [], [], "", None
    for number, value in fields(node):
        if number == _NODE_INPUT:
            inputs.append(text(value))
        elif number == _NODE_OUTPUT:
            outputs.append(text(value))
        elif number == _NODE_OP:
            op = text(value)
        elif number == _NODE_ATTRIBUTE:
            attribute = dict(fields(message(value)))
            if text(attribute.get(_ATTRIBUTE_NAME, memoryview(b""))) == "axis":
                axis = _signed(attribute.get(_ATTRIBUTE_INT, 0))
    return Node(op, tuple(inputs), tuple(outputs), axis)


def _read_location(tensor: memoryview) -> str | None:
    """The file that holds a tensor's data, where that is another one."""
    for number, value in fields(tensor):
        if number == _TENSOR_EXTERNAL:
            entry = dict(fields(message(value)))
            if text(entry.get(1, memoryview(b""))) == "location":
                return text(entry.get(2, memoryview(b"")))
    return None


def _signed(value: Value) -> int:
    if not isinstance(value, int):
        raise WireError("an integer attribute is no integer")
    return value - (1 << 64) if value >= 1 << 63 else value
