"""From a decoder in Optimum's layout to the two graphs that an NPU can run: fixed shapes, cut into host and decoder.

An NPU's compiler refuses what has no fixed size, and a 16-bit grid cannot hold a position of 4,000 and a mask of minus
infinity. So what only depends on token ids, positions and the mask (embeddings, rotary tables, the additive mask) goes
into a *host* graph, which the CPU runs by design; the *decoder* takes its outputs and the cache, as phone vendors' own
exports do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from model_runtime.errors import ModelFormatError
from model_runtime.export.graphs import (
    GraphView,
    add_constant,
    fold,
    make_model,
    prune,
    rename,
    replace,
    sizes,
    tensor_info,
)
from model_runtime.onnx.layout import ATTENTION_MASK, INPUT_IDS, LOGITS, POSITION_IDS, is_past, is_present

if TYPE_CHECKING:
    from pathlib import Path

_ALLOWED_ELSE = -1e9


@dataclass(frozen=True, slots=True)
class Halves:
    """One compiled length: `host` on the CPU, then `decoder` on the NPU."""

    tokens: int
    host: onnx.ModelProto
    decoder: onnx.ModelProto


def halves(source: Path, tokens: int, slots: int) -> Halves:
    """The decoder at `source`, for passes of `tokens` tokens over a cache of `slots`. Raises ModelFormatError."""
    model = onnx.load(str(source))
    _fix_sizes(model.graph, tokens, slots, str(source))
    model = fold(model)
    _return_new_positions_only(model.graph, tokens, str(source))
    _add_masks(model.graph)
    return Halves(tokens, *_cut(model))


def _fix_sizes(graph: onnx.GraphProto, tokens: int, slots: int, name: str) -> None:
    given = {value.name: value for value in graph.input}
    if missing := [key for key in (INPUT_IDS, ATTENTION_MASK, POSITION_IDS) if key not in given]:
        raise ModelFormatError(
            f"{name} has no input {', '.join(missing)}: fixed shapes need ids, mask and positions as "
            "inputs, as Optimum's text-generation-with-past exports them"
        )
    for key, value in given.items():
        shape = value.type.tensor_type.shape.dim
        if key in (INPUT_IDS, POSITION_IDS):
            wanted = [1, tokens]
        elif key == ATTENTION_MASK:
            wanted = [1, slots + tokens]
        elif is_past(key) and len(shape) == 4 and shape[1].dim_value and shape[3].dim_value:
            wanted = [1, shape[1].dim_value, slots, shape[3].dim_value]
        else:
            raise ModelFormatError(
                f"{name}: the input {key} cannot be made of a fixed size; it must be past_key_values.<layer>.key or "
                ".value of (batch, heads, past, head_dim) with heads and head_dim as numbers"
            )
        for dim, size in zip(shape, wanted, strict=True):
            dim.dim_value = size
    # Sizes written down for the open graph would contradict these.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def _return_new_positions_only(graph: onnx.GraphProto, tokens: int, name: str) -> None:
    """`present` becomes what the pass adds, which the host puts into its buffers in place."""
    view = GraphView(graph)
    for output in graph.output:
        if not is_present(output.name):
            continue
        joined = view.made_by(output.name, "Concat")
        if joined is None or len(joined.input) != 2 or not is_past(joined.input[0]):
            raise ModelFormatError(
                f"{name}: {output.name} is not past and new positions joined: export the model with plain attention "
                "(no GroupQueryAttention), for example by optimum-cli export onnx"
            )
        new = joined.input[1]
        rename(graph, output.name, f"{output.name}.all")
        rename(graph, new, output.name)
        output.type.tensor_type.shape.dim[2].dim_value = tokens


def _add_masks(graph: onnx.GraphProto) -> None:
    """Where(allowed, scores, lowest) becomes scores + mask, whose mask can be computed once, on the host."""
    view = GraphView(graph)
    nodes: list[Any] = []
    for node in graph.node:
        softmax = any(user.op_type == "Softmax" for name in node.output for user in view.users.get(name, ()))
        if node.op_type == "Where" and softmax:
            zero, lowest = (
                add_constant(graph, "mask.zero", 0, np.float32),
                add_constant(graph, "mask.lowest", _ALLOWED_ELSE, np.float32),
            )
            allowed, scores, other = node.input
            if view.constant(other) is None:
                allowed_first = False
                scores, other = other, scores
            else:
                allowed_first = True
            if view.constant(other) is None:
                nodes.append(node)
                continue
            values = [zero, lowest] if allowed_first else [lowest, zero]
            mask = f"{node.output[0]}.mask"
            nodes.append(helper.make_node("Where", [allowed, *values], [mask], name=mask))
            nodes.append(helper.make_node("Add", [scores, mask], list(node.output), name=node.name or node.output[0]))
        else:
            nodes.append(node)
    replace(graph.node, nodes)


def _cut(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph, known = model.graph, tensor_info(model)
    constants = {tensor.name for tensor in graph.initializer}
    ids, light = {INPUT_IDS}, {ATTENTION_MASK, POSITION_IDS}
    on_host, in_decoder = [], []
    for node in graph.node:
        varying = [name for name in node.input if name and name not in constants]
        if node.op_type == "Cast" and set(varying) <= ids:
            ids.update(node.output)
            on_host.append(node)
        elif node.op_type == "Gather" and node.input[0] in constants and node.input[1] in ids:
            on_host.append(node)
        elif varying and set(varying) <= light:
            light.update(node.output)
            on_host.append(node)
        else:
            in_decoder.append(node)
    made = {name for node in on_host for name in node.output}
    boundary = list(dict.fromkeys(name for node in in_decoder for name in node.input if name in made))
    values = [known[name] for name in boundary]
    for value in values:
        sizes(value)
    inputs = {value.name: value for value in graph.input}
    host = helper.make_graph(
        on_host,
        "host",
        [inputs[name] for name in (INPUT_IDS, ATTENTION_MASK, POSITION_IDS)],
        values,
        graph.initializer,
    )
    decoder = helper.make_graph(
        in_decoder,
        "decoder",
        [*values, *(value for name, value in inputs.items() if is_past(name))],
        [value for value in graph.output if value.name == LOGITS or is_present(value.name)],
        graph.initializer,
        # For what comes later and cannot work them out for every operator.
        value_info=list(graph.value_info),
    )
    prune(host)
    prune(decoder)
    return make_model(model, host), make_model(model, decoder)


def mask_of(view: GraphView, softmax: onnx.NodeProto) -> tuple[str, str] | None:
    """(scores, mask) that are added before a softmax; None where there is no such sum.

    The mask is what is an input of the graph."""
    added = view.made_by(softmax.input[0], "Add")
    if added is None:
        return None
    inputs = {value.name for value in view.graph.input}
    first, second = added.input
    if second in inputs:
        return first, second
    return (second, first) if first in inputs else None


def lower_bound(host: onnx.ModelProto, name: str, floor: float) -> None:
    """Let no value of the host's output `name` be below `floor`."""
    graph = host.graph
    rename(graph, name, f"{name}.unbounded")
    bound = add_constant(graph, f"{name}.floor", floor, np.float32)
    graph.node.append(helper.make_node("Max", [f"{name}.unbounded", bound], [name], name=f"{name}.bounded"))


def element_type(value: onnx.ValueInfoProto) -> int:
    kind: int = value.type.tensor_type.elem_type
    return kind


FLOAT = TensorProto.FLOAT
