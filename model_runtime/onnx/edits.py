"""What is added to a decoder's graph when it is loaded: only the logits asked for, and the attention asked for.

*Row choice.* A decoder computes logits of every position of a chunk, and for a prompt all but the last are thrown
away: a quarter of the work of a small model with a large vocabulary. A `Slice` before the last product leaves the rest.

*Taps.* The attention probabilities come from one `Softmax` in each layer. A `Slice` takes the wanted query rows of
each, a `Cast` makes them float32. Protobuf merges a message that is written twice, so they are really appended.

The weights in the file are copied as they are, never parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_runtime.onnx import schema
from model_runtime.onnx.graph import Node, read_node
from model_runtime.onnx.wire import message, spans, write_bytes, write_head, write_int

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Inputs that an edited graph has besides its own; int64, one element each.
LOGITS_START, TAP_START, TAP_END = "pd_device.logits.start", "pd_device.tap.start", "pd_device.tap.end"
OWN_INPUTS = frozenset({LOGITS_START, TAP_START, TAP_END})


def tap_output(layer: int) -> str:
    """The output that a tapped graph has for a layer: (batch, heads, rows, keys) float32."""
    return f"pd_device.attention.{layer}"


def edit(model: memoryview, *, head: Node | None, attention: Sequence[str]) -> bytes:
    """The model with a row choice before the node `head` and with taps on the tensors `attention`, where given.

    `LOGITS_START` is the first position whose logits are computed, negative ones counted from the end. `TAP_START` and
    `TAP_END` are the query rows of every tap; an empty range costs nothing.
    """
    pieces: list[bytes | memoryview] = []
    for number, value, field in spans(model):
        if number == schema.MODEL_GRAPH and head is not None:
            graph = _with_row_choice(message(value), head)
            pieces += [write_head(schema.MODEL_GRAPH, sum(map(len, graph))), *graph]
        else:
            pieces.append(field)
    if attention:
        pieces.append(write_bytes(schema.MODEL_GRAPH, _taps(attention)))
    return b"".join(pieces)


def _with_row_choice(graph: memoryview, head: Node) -> list[bytes | memoryview]:
    end, axis, chosen = "pd_device.logits.end", "pd_device.logits.axis", "pd_device.logits.rows"
    pieces: list[bytes | memoryview] = [
        write_bytes(schema.GRAPH_INPUT, _tensor_info(LOGITS_START, schema.INT64, (1,))),
        write_bytes(schema.GRAPH_INITIALIZER, _constant(end, 2**63 - 1)),
        write_bytes(schema.GRAPH_INITIALIZER, _constant(axis, 1)),
    ]
    for number, value, field in spans(graph):
        if number == schema.GRAPH_NODE and read_node(message(value)).outputs == head.outputs:
            choice = _node("Slice", (head.inputs[0], LOGITS_START, end, axis), chosen)
            pieces += [
                write_bytes(schema.GRAPH_NODE, choice),
                write_bytes(schema.GRAPH_NODE, _with_first_input(message(value), chosen)),
            ]
        else:
            pieces.append(field)
    return pieces


def _with_first_input(node: memoryview, name: str) -> bytes:
    pieces: list[bytes | memoryview] = []
    first = True
    for number, _, field in spans(node):
        if number == schema.NODE_INPUT and first:
            pieces.append(write_bytes(schema.NODE_INPUT, name))
            first = False
        else:
            pieces.append(field)
    return b"".join(pieces)


def _taps(attention: Sequence[str]) -> bytes:
    axis = "pd_device.tap.axis"
    to_float = write_bytes(schema.ATTRIBUTE_NAME, "to") + write_int(schema.ATTRIBUTE_INT, schema.FLOAT)
    to_float += write_int(schema.ATTRIBUTE_TYPE, schema.ATTRIBUTE_IS_INT)
    pieces = [
        write_bytes(schema.GRAPH_INPUT, _tensor_info(TAP_START, schema.INT64, (1,))),
        write_bytes(schema.GRAPH_INPUT, _tensor_info(TAP_END, schema.INT64, (1,))),
        write_bytes(schema.GRAPH_INITIALIZER, _constant(axis, 2)),
    ]
    for layer, probabilities in enumerate(attention):
        rows, output = f"pd_device.attention_rows.{layer}", tap_output(layer)
        cast = _node("Cast", (rows,), output) + write_bytes(schema.NODE_ATTRIBUTE, to_float)
        pieces += [
            write_bytes(schema.GRAPH_NODE, _node("Slice", (probabilities, TAP_START, TAP_END, axis), rows)),
            write_bytes(schema.GRAPH_NODE, cast),
            write_bytes(schema.GRAPH_OUTPUT, _tensor_info(output, schema.FLOAT, (None,) * 4)),
        ]
    return b"".join(pieces)


def _node(op: str, inputs: Sequence[str], output: str) -> bytes:
    named = b"".join(write_bytes(schema.NODE_INPUT, name) for name in inputs)
    named += write_bytes(schema.NODE_OUTPUT, output) + write_bytes(schema.NODE_NAME, output)
    return named + write_bytes(schema.NODE_OP, op)


def _constant(name: str, value: int) -> bytes:
    """A tensor of one int64."""
    return (
        write_int(schema.TENSOR_DIMS, 1)
        + write_int(schema.TENSOR_TYPE, schema.INT64)
        + write_int(schema.TENSOR_INT64, value)
        + write_bytes(schema.TENSOR_NAME, name)
    )


def _tensor_info(name: str, element: int, shape: Sequence[int | None]) -> bytes:
    sizes = (b"" if size is None else write_int(schema.DIM_VALUE, size) for size in shape)
    dims = b"".join(write_bytes(schema.SHAPE_DIM, size) for size in sizes)
    tensor = write_int(schema.TYPE_ELEMENT, element) + write_bytes(schema.TYPE_SHAPE, dims)
    return write_bytes(schema.VALUE_NAME, name) + write_bytes(
        schema.VALUE_TYPE, write_bytes(schema.TYPE_TENSOR, tensor)
    )
