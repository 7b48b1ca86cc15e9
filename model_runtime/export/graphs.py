"""Looking into ONNX graphs and changing them: what the steps of an export share."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from model_runtime.errors import ModelFormatError

# Constants smaller than this stay in the graph.
_INLINE, _ALIGNMENT = 1024, 4096


class GraphView:
    """Who makes a tensor, who uses it, and which are constants. Stale once nodes are added or renamed."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def made_by(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """The node that makes `name`, if it is of one of these kinds."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in kinds else None

    def constant(self, name: str) -> NDArray[Any] | None:
        tensor = self.constants.get(name)
        return numpy_helper.to_array(tensor) if tensor is not None else None


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Everywhere but among the graph's inputs and outputs."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def add_constant(graph: onnx.GraphProto, name: str, values: Any, dtype: Any) -> str:
    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))
    return name


def sizes(value: onnx.ValueInfoProto) -> list[int]:
    """A tensor's shape. Raises ModelFormatError where a dimension is no number."""
    found = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in value.type.tensor_type.shape.dim]
    if 0 in found:
        raise ModelFormatError(
            f"the size of {value.name} stays open ({value.type.tensor_type.shape}): it must be fixed"
        )
    return found


def prune(graph: onnx.GraphProto) -> None:
    """Drop the nodes and constants that no output needs, in whatever order the nodes are."""
    producers = GraphView(graph).producers
    needed: set[str] = set()
    open_names = [output.name for output in graph.output]
    while open_names:
        name = open_names.pop()
        if name not in needed:
            needed.add(name)
            open_names += producers[name].input if name in producers else ()
    replace(graph.node, [node for node in graph.node if needed.intersection(node.output)])
    replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])


def replace(field: Any, values: list[Any]) -> None:
    """What a repeated field holds, which may be some of what it held."""
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with all that is constant worked out and every size written down, by ONNX Runtime's basic
    optimizations. Weights come back inside. Raises ModelFormatError."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        given, folded = Path(folder) / "given.onnx", Path(folder) / "folded.onnx"
        onnx.save(model, str(given), save_as_external_data=True, location="given.data")
        options.optimized_model_filepath = str(folded)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.data")
        try:
            # A product with a bias stays two nodes: as one it would bring two reshapes with it.
            ort.InferenceSession(
                str(given), options, providers=["CPUExecutionProvider"], disabled_optimizers=["MatMulAddFusion"]
            )
        except Exception as error:
            raise ModelFormatError(f"the graph cannot be made of fixed shapes. ONNX Runtime: {error}") from error
        found = onnx.load(str(folded))
    return onnx.shape_inference.infer_shapes(found, data_prop=True)


def tensor_info(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Type and shape of every tensor that has them written down."""
    graph = model.graph
    return {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}


def make_model(like: onnx.ModelProto, graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, producer_name="pd-device", opset_imports=list(like.opset_import))
    model.ir_version = like.ir_version
    return model


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


class SharedWeights:
    """A file of weights beside several graphs, in which what two of them have in common is held once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[bytes, int] = {}
        self._size = 0

    def save(self, model: onnx.ModelProto, path: Path) -> None:
        """Write `model` without its weights, which go into the shared file. `path` is in the same folder."""
        model = copy(model)
        with self._path.open("ab") as file:
            for tensor in model.graph.initializer:
                data = tensor.raw_data
                if len(data) < _INLINE:
                    continue
                key = hashlib.sha256(data).digest()
                if key not in self._places:
                    # Aligned as ONNX Runtime maps files.
                    file.write(b"\0" * (-self._size % _ALIGNMENT))
                    self._size += -self._size % _ALIGNMENT
                    self._places[key] = self._size
                    file.write(data)
                    self._size += len(data)
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
                for name, value in (
                    ("location", self._path.name),
                    ("offset", self._places[key]),
                    ("length", len(data)),
                ):
                    tensor.external_data.add(key=name, value=str(value))
        path.write_bytes(model.SerializeToString())
