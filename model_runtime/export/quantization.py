"""Weights and activations on integer grids (QDQ), with the ranges that calibration found.

All compiled lengths share the ranges, and keys and values keep one grid on their way in, out and through: what one
length writes into the cache is what another reads, code for code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from model_runtime.export.graphs import GraphView, copy, prune, rename, replace
from model_runtime.export.surgery import Halves, lower_bound, mask_of
from model_runtime.onnx.layout import is_past, is_present

if TYPE_CHECKING:
    pass

# e^-24 is less than a thousandth of a 16-bit grid's step below one: what is masked has a weight of exactly zero.
_BELOW = 24.0
_WEIGHTS = {4: QuantType.QInt4, 8: QuantType.QInt8}


@dataclass(frozen=True, slots=True)
class Grid:
    """Bits of a number."""

    activations: Literal[16] = 16
    weights: Literal[4, 8] = 8


def quantize(halves: Halves, ranges: TensorsData, grid: Grid) -> Halves:
    """`halves` (lowered, in float32) on integer grids. The host's mask is bounded, as a grid has no infinity."""
    host, decoder = copy(halves.host), copy(halves.decoder)
    overrides = _cache_ranges(decoder, ranges) | _mask_ranges(host, decoder, ranges)
    weights = _weights(decoder, grid)
    config = get_qnn_qdq_config(
        decoder,
        _NO_READER,
        activation_type=QuantType.QUInt16,
        weight_type=_WEIGHTS[grid.weights],
        per_channel=True,
        weight_symmetric=True,
        init_overrides=overrides | weights,
    )
    quantizer = QDQQuantizer(
        decoder,
        per_channel=True,
        reduce_range=False,
        weight_qType=_WEIGHTS[grid.weights],
        activation_qType=QuantType.QUInt16,
        tensors_range=ranges,
        nodes_to_quantize=None,
        nodes_to_exclude=[],
        op_types_to_quantize=config.op_types_to_quantize,
        extra_options=config.extra_options,
    )
    quantizer.quantize_model()
    quantized = quantizer.model.model
    _keep_codes(quantized.graph)
    return Halves(halves.tokens, host, quantized)


def _cache_ranges(decoder: onnx.ModelProto, ranges: TensorsData) -> dict[str, list[dict[str, Any]]]:
    overrides = {}
    for value in decoder.graph.output:
        if not is_present(value.name):
            continue
        past = value.name.replace("present", "past_key_values")
        low, high = _range(ranges[value.name])
        # Unused slots hold zeros.
        both = _bounds(min(low, 0.0), max(high, 0.0))
        for name in (past, value.name, f"{value.name}.all"):
            overrides[name] = [dict(both)]
    return overrides


def _mask_ranges(
    host: onnx.ModelProto, decoder: onnx.ModelProto, ranges: TensorsData
) -> dict[str, list[dict[str, Any]]]:
    view, overrides = GraphView(decoder.graph), {}
    floors: dict[str, float] = {}
    for node in decoder.graph.node:
        if node.op_type != "Softmax" or (found := mask_of(view, node)) is None:
            continue
        scores, mask = found
        low, high = _range(ranges[scores])
        floors[mask] = min(floors.get(mask, 0.0), -(high - low + _BELOW))
        overrides[node.input[0]] = [_bounds(low - _BELOW, high)]
    for mask, floor in floors.items():
        lower_bound(host, mask, floor)
        overrides[mask] = [_bounds(floor, 0.0)]
    return overrides


def _weights(decoder: onnx.ModelProto, grid: Grid) -> dict[str, list[dict[str, Any]]]:
    """A scale for each channel of a convolution."""
    return {
        node.input[1]: [{"quant_type": _WEIGHTS[grid.weights], "axis": 0, "symmetric": True}]
        for node in decoder.graph.node
        if node.op_type == "Conv"
    }


def _keep_codes(graph: onnx.GraphProto) -> None:
    """The cache goes in and out as codes of its grid: half of the memory, and nothing to convert."""
    view = GraphView(graph)
    dropped, kinds = set(), {}
    for value in graph.input:
        if is_past(value.name):
            [quantize_node] = view.users[value.name]
            for reader in view.users[quantize_node.output[0]]:
                reader.input[0] = value.name
            dropped.add(quantize_node.output[0])
            kinds[value.name] = _code_type(view, quantize_node)
    for value in graph.output:
        if is_present(value.name):
            dequantize = view.producers[value.name]
            codes, numbers = dequantize.input[0], f"{value.name}.numbers"
            quantize_node = view.producers[codes]
            kinds[value.name] = _code_type(view, quantize_node)
            rename(graph, value.name, numbers)
            rename(graph, codes, value.name)
    for value in (*graph.input, *graph.output):
        if value.name in kinds:
            value.type.tensor_type.elem_type = kinds[value.name]
    replace(graph.node, [node for node in graph.node if node.output[0] not in dropped])
    prune(graph)


def _code_type(view: GraphView, quantize_node: onnx.NodeProto) -> int:
    kind: int = view.constants[quantize_node.input[2]].data_type
    return kind


def _bounds(low: float, high: float) -> dict[str, Any]:
    return {"rmin": np.float32(low), "rmax": np.float32(high)}


def _range(data: TensorData) -> tuple[float, float]:
    low, high = data.range_value
    return float(low.reshape(())), float(high.reshape(()))


_NO_READER: Any = None
