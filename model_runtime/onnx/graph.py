"""What an ONNX file holds beyond its inputs and outputs: the nodes, without the weights."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from model_runtime.errors import ModelFormatError, ModelNotFoundError
from model_runtime.onnx import schema
from model_runtime.onnx.wire import Value, WireError, fields, message, text

if TYPE_CHECKING:
    from pathlib import Path

# What may stand between an attention's probabilities and their product with the values.
_PASSES_ON = frozenset({"Cast", "Identity", "Dropout", "Where", "IsNaN", "Reshape", "DynamicQuantizeLinear"})
_PRODUCTS = frozenset({"MatMul", "MatMulInteger", "Einsum"})
# What may stand between the last product and the logits: all of it works on each position alone.
_AFTER_HEAD = frozenset({"Cast", "Identity", "Mul", "Div", "Add", "Tanh", "MatMulInteger"})
_LONGEST_TAIL = 8
_HEADS = frozenset({"MatMul", "FusedMatMul", "MatMulNBits", "DynamicQuantizeLinear"})


@dataclass(frozen=True, slots=True)
class Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    #: The `axis` attribute, where it has one.
    axis: int | None


@dataclass(frozen=True)
class Graph:
    """The nodes of a file, the shapes of its inputs (None for a size left open), its outputs, and the files beside
    it that hold weights."""

    nodes: tuple[Node, ...]
    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    external: tuple[str, ...]

    @property
    def quantizes_activations(self) -> bool:
        """One scale for a whole activation tensor: what shares a pass changes each other's numbers slightly."""
        return any(node.op == "DynamicQuantizeLinear" for node in self.nodes)

    @cached_property
    def attention(self) -> tuple[str, ...]:
        """The tensors of attention probabilities in the order of the graph, which is that of the layers."""
        return tuple(
            node.outputs[0]
            for node in self.nodes
            if node.op == "Softmax" and node.axis in (None, -1, 3) and self._is_multiplied(node.outputs[0], 3)
        )

    @cached_property
    def head(self) -> Node | None:
        """The node whose first input holds every position and leads to nothing but `logits`; None where the graph is
        not that plain."""
        producers = {name: node for node in self.nodes for name in node.outputs}
        node = producers.get("logits")
        for _ in range(_LONGEST_TAIL):
            if node is not None and node.op in _AFTER_HEAD:
                node = producers.get(node.inputs[0])
        if node is None or node.op not in _HEADS or node.inputs[0] not in producers:
            return None
        reached, waiting = set(), list(node.outputs)
        while waiting:
            name = waiting.pop()
            reached.add(name)
            waiting += [out for user in self._consumers.get(name, ()) for out in user.outputs if out not in reached]
        return node if reached.intersection(self.outputs) == {"logits"} else None

    @cached_property
    def _consumers(self) -> dict[str, list[Node]]:
        consumers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                consumers.setdefault(name, []).append(node)
        return consumers

    def _is_multiplied(self, name: str, depth: int) -> bool:
        return any(
            node.op in _PRODUCTS
            or (depth > 0 and node.op in _PASSES_ON and any(self._is_multiplied(o, depth - 1) for o in node.outputs))
            for node in self._consumers.get(name, ())
        )


def map_file(path: Path) -> memoryview:
    """The file's bytes, read as they are looked at. Raises ModelNotFoundError, ModelFormatError for an empty file."""
    try:
        with path.open("rb") as file:
            # Never closed by hand: it goes with the last view of it, which an error's traceback may still hold.
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path} is not there") from None
    except ValueError as error:
        raise ModelFormatError(f"{path} is empty: download or export it again") from error


def read_graph(path: Path) -> Graph:
    """Raises ModelNotFoundError, ModelFormatError for what is no ONNX file or is cut short."""
    try:
        return _read_model(map_file(path))
    except WireError as error:
        raise ModelFormatError(
            f"{path} is no ONNX file, or is damaged or cut short ({error}): download or export it again"
        ) from error


def read_node(node: memoryview) -> Node:
    """Raises WireError."""
    inputs, outputs, op, axis = [], [], "", None
    for number, value in fields(node):
        if number == schema.NODE_INPUT:
            inputs.append(text(value))
        elif number == schema.NODE_OUTPUT:
            outputs.append(text(value))
        elif number == schema.NODE_OP:
            op = text(value)
        elif number == schema.NODE_ATTRIBUTE:
            attribute = dict(fields(message(value)))
            if text(attribute.get(schema.ATTRIBUTE_NAME, _NOTHING)) == "axis":
                axis = _signed(attribute.get(schema.ATTRIBUTE_INT, 0))
    return Node(op, tuple(inputs), tuple(outputs), axis)


_NOTHING = memoryview(b"")


def _read_model(model: memoryview) -> Graph:
    graphs = [message(value) for number, value in fields(model) if number == schema.MODEL_GRAPH]
    if not graphs:
        raise WireError("it holds no graph")
    nodes: list[Node] = []
    inputs: dict[str, tuple[int | None, ...]] = {}
    outputs: list[str] = []
    external: dict[str, None] = {}
    for number, value in (field for graph in graphs for field in fields(graph)):
        if number == schema.GRAPH_NODE:
            nodes.append(read_node(message(value)))
        elif number == schema.GRAPH_INPUT:
            name, shape = _read_tensor_info(message(value))
            inputs[name] = shape
        elif number == schema.GRAPH_OUTPUT:
            outputs.append(_read_tensor_info(message(value))[0])
        elif number == schema.GRAPH_INITIALIZER and (location := _read_location(message(value))):
            external[location] = None
    return Graph(tuple(nodes), inputs, tuple(outputs), tuple(external))


def _read_tensor_info(info: memoryview) -> tuple[str, tuple[int | None, ...]]:
    found = dict(fields(info))
    kind = dict(fields(message(found.get(schema.VALUE_TYPE, _NOTHING))))
    tensor = dict(fields(message(kind.get(schema.TYPE_TENSOR, _NOTHING))))
    dims = fields(message(tensor.get(schema.TYPE_SHAPE, _NOTHING)))
    sizes = (dict(fields(message(dim))).get(schema.DIM_VALUE) for number, dim in dims if number == schema.SHAPE_DIM)
    return text(found.get(schema.VALUE_NAME, _NOTHING)), tuple(s if isinstance(s, int) else None for s in sizes)


def _read_location(tensor: memoryview) -> str | None:
    """The file that holds a tensor's data, where that is another one."""
    for number, value in fields(tensor):
        if number == schema.TENSOR_EXTERNAL:
            entry = dict(fields(message(value)))
            if text(entry.get(schema.ENTRY_KEY, _NOTHING)) == "location":
                return text(entry.get(schema.ENTRY_VALUE, _NOTHING))
    return None


def _signed(value: Value) -> int:
    if not isinstance(value, int):
        raise WireError("an integer attribute is no integer")
    return value - (1 << 64) if value >= 1 << 63 else value
