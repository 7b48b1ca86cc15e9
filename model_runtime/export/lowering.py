"""Rewriting a decoder into the operators that NPU compilers do best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from model_runtime.export.graphs import GraphView, add_constant, prune, replace

if TYPE_CHECKING:
    import onnx

_RMS_NORM_OPSET = 23


def lower(model: onnx.ModelProto, *, convolve: bool) -> None:
    """One operator for each RMS norm: squares of outliers would take up the whole 16-bit range. With `convolve`, each
    product with a constant becomes a 1x1 convolution, which can have a scale for each channel of its weights."""
    _fuse_norms(model)
    if convolve:
        _convolve(model.graph)


def _fuse_norms(model: onnx.ModelProto) -> None:
    graph = model.graph
    view, fused = GraphView(graph), {}
    for node in graph.node:
        if (found := _norm(view, node)) is None:
            continue
        x, weight, epsilon = found
        name = node.output[0]
        fused[name] = helper.make_node(
            "SimplifiedLayerNormalization", [x, weight], [name], name=name, axis=-1, epsilon=epsilon, stash_type=1
        )
    replace(graph.node, [fused.get(node.output[0], node) for node in graph.node])
    prune(graph)


def _norm(view: GraphView, node: onnx.NodeProto) -> tuple[str, str, float] | None:
    """(input, weight, epsilon) where `node` is the last of: x / sqrt(mean(x²) + epsilon) * weight."""
    if node.op_type != "Mul":
        return None
    for scaled, weight in (node.input, reversed(node.input)):
        gamma = view.constant(weight)
        if gamma is None or gamma.ndim != 1 or gamma.dtype != np.float32:
            continue
        if (root := _divided_by_root(view, scaled)) is None:
            continue
        x, under = root
        if (added := view.made_by(under, "Add")) is None:
            continue
        for mean, epsilon in (added.input, reversed(added.input)):
            small, reduced = view.constant(epsilon), view.made_by(mean, "ReduceMean")
            if small is not None and small.size == 1 and reduced is not None and _is_square(view, reduced.input[0], x):
                return x, weight, float(small.reshape(()))
    return None


def _divided_by_root(view: GraphView, name: str) -> tuple[str, str] | None:
    """(x, y) where the tensor is x / sqrt(y), in one of the forms that exporters write."""
    if divided := view.made_by(name, "Div"):
        root = view.made_by(divided.input[1], "Sqrt")
        return (divided.input[0], root.input[0]) if root else None
    if (product := view.made_by(name, "Mul")) is None:
        return None
    for x, inverse in (product.input, reversed(product.input)):
        if reciprocal := view.made_by(inverse, "Reciprocal"):
            root = view.made_by(reciprocal.input[0], "Sqrt")
        elif divided := view.made_by(inverse, "Div"):
            one = view.constant(divided.input[0])
            root = view.made_by(divided.input[1], "Sqrt") if one is not None and np.all(one == 1) else None
        else:
            continue
        if root:
            return x, root.input[0]
    return None


def _is_square(view: GraphView, name: str, x: str) -> bool:
    if product := view.made_by(name, "Mul"):
        return list(product.input) == [x, x]
    power = view.made_by(name, "Pow")
    exponent = view.constant(power.input[1]) if power is not None else None
    return power is not None and power.input[0] == x and exponent is not None and bool(np.all(exponent == 2))


def _convolve(graph: onnx.GraphProto) -> None:
    view = GraphView(graph)
    nodes: list[Any] = []
    for node in graph.node:
        weights = view.constant(node.input[1]) if node.op_type == "MatMul" else None
        if weights is None or weights.ndim != 2:
            nodes.append(node)
            continue
        x, name = node.input[0], node.output[0]
        # (1, tokens, inputs) to (1, inputs, 1, tokens): the compiler's own layout makes these transposes vanish.
        kernel = f"{name}.kernel"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weights.T)[:, :, None, None], kernel))
        axis = add_constant(graph, "convolve.axis", [1], np.int64)
        nodes += [
            helper.make_node("Unsqueeze", [x, axis], [f"{name}.4d"], name=f"{name}.4d"),
            helper.make_node("Transpose", [f"{name}.4d"], [f"{name}.in"], name=f"{name}.in", perm=[0, 3, 1, 2]),
            helper.make_node("Conv", [f"{name}.in", kernel], [f"{name}.out"], name=f"{name}.conv", kernel_shape=[1, 1]),
            helper.make_node("Transpose", [f"{name}.out"], [f"{name}.back"], name=f"{name}.back", perm=[0, 2, 3, 1]),
            helper.make_node("Squeeze", [f"{name}.back", axis], [name], name=node.name or name),
        ]
    replace(graph.node, nodes)
    prune(graph)
