"""Write a decoder as ONNX, straight from arrays: a dynamic graph in Optimum's layout and a fixed-shape one for NPUs.

Weights are not copied into the graphs: both refer to the folder's `model.safetensors` by offset. Where that file holds
fp16, a `Cast` widens each tensor, which ONNX Runtime folds when it loads the model.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from demos.training.architecture import DecoderConfig, Weights

_OPSET, _IR_VERSION = 17, 8
# Far below any score, yet finite: a fully masked row stays a number.
_MASKED = -1e9
Dim = int | str


def export_dynamic(config: DecoderConfig, weights: Weights, path: Path) -> None:
    """`input_ids`, `attention_mask`, `position_ids`, `past_key_values.*` → `logits`, `present.*` (past included)."""
    graph = _Graph(config, weights, path, "B", "T", "P", "P+T")
    graph.save(graph.build(grows=True))


def export_fixed(config: DecoderConfig, weights: Weights, path: Path, chunk: int, context: int) -> None:
    """One chunk against `context` cache slots, no dynamic dimension; `present.*` holds the chunk's positions only.

    `attention_mask` is (1, context + chunk): which slots of the past are filled, then which of the chunk's tokens
    are real. The host copies `present.*` into its own static buffers.
    """
    graph = _Graph(config, weights, path, 1, chunk, context, context + chunk)
    graph.save(graph.build(grows=False))


@dataclass
class _Graph:
    config: DecoderConfig
    weights: Weights
    path: Path
    batch: Dim
    tokens: Dim
    past: Dim
    keys: Dim
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    _loaded: dict[str, str] = field(default_factory=dict)
    #: The names of tensors that are 16-bit.
    _half: set[str] = field(default_factory=set)

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any) -> str:
        from onnx import numpy_helper

        if name not in self._loaded:
            self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
            self._loaded[name] = name
        return name

    def weight(self, name: str) -> str:
        """A tensor of the model as float32, loaded from `model.safetensors` once however often it is used."""
        return self._as_float(self._stored(name))

    def _as_float(self, name: str) -> str:
        import onnx

        if name not in self._half:
            return name
        if name + ".float" not in self._loaded:
            self._loaded[name + ".float"] = self.add("Cast", [name], name + ".float", to=onnx.TensorProto.FLOAT)
        return self._loaded[name + ".float"]

    def _stored(self, name: str) -> str:
        """A tensor of the model as it lies in `model.safetensors`."""
        if name not in self._loaded:
            self._loaded[name] = self._external(name)
        return self._loaded[name]

    def _external(self, name: str) -> str:
        import onnx

        location = self.path.parent / "model.safetensors"
        if not location.exists():
            return self.constant(name + ".value", self.weights[name], np.float32)
        kind, shape, offset, length = _located(location, name)
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
        for key, value in (("location", location.name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        if kind != onnx.TensorProto.FLOAT:
            self._half.add(name)
        return name

    def build(self, *, grows: bool) -> Any:
        """The graph; with `grows`, `present` is past and new positions together, else the new ones alone."""
        from onnx import TensorProto, helper

        config = self.config
        cache = [self.batch, config.kv_heads, self.past, config.head_dim]
        fresh = [self.batch, config.kv_heads, self.keys if grows else self.tokens, config.head_dim]
        inputs = [
            ("input_ids", TensorProto.INT64, [self.batch, self.tokens]),
            ("attention_mask", TensorProto.INT64, [self.batch, self.keys]),
            ("position_ids", TensorProto.INT64, [self.batch, self.tokens]),
        ]
        outputs = [("logits", TensorProto.FLOAT, [self.batch, self.tokens, config.vocabulary])]
        for layer in range(config.layers):
            for part in ("key", "value"):
                inputs.append((f"past_key_values.{layer}.{part}", TensorProto.FLOAT, cache))
                outputs.append((f"present.{layer}.{part}", TensorProto.FLOAT, fresh))

        x = self.add("Gather", [self.weight("model.embed_tokens.weight"), "input_ids"], "embedded")
        cos, sin = self._rotary()
        mask = self._mask()
        for layer in range(config.layers):
            x = self._layer(layer, x, cos, sin, mask, grows=grows)
        x = self._norm(x, "model.norm")
        head = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
        self.add("MatMul", [x, self._transposed(head)], "logits")
        return helper.make_graph(
            self.nodes,
            "decoder",
            [helper.make_tensor_value_info(*each) for each in inputs],
            [helper.make_tensor_value_info(*each) for each in outputs],
            self.initializers,
        )

    def save(self, graph: Any) -> None:
        import onnx
        from onnx import helper

        model = helper.make_model(
            graph,
            producer_name="pd-device",
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET)],
        )
        onnx.checker.check_model(_without_external(model))
        self.path.write_bytes(model.SerializeToString())

    def _transposed(self, name: str) -> str:
        """For a product. Turned before it is widened: folding holds both forms at once, and this way one is half as
        large."""
        stored, output = self._stored(name), name + ".transposed"
        if output not in self._loaded:
            self._loaded[output] = self.add("Transpose", [stored], output, perm=[1, 0])
            if stored in self._half:
                self._half.add(output)
        return self._as_float(output)

    def _linear(self, x: str, name: str) -> str:
        product = self.add("MatMul", [x, self._transposed(name + ".weight")], name + ".product")
        if name + ".bias" not in self.weights:
            return product
        return self.add("Add", [product, self.weight(name + ".bias")], name + ".biased")

    def _norm(self, x: str, name: str) -> str:
        squared = self.add("Mul", [x, x], name + ".squared")
        mean = self.add("ReduceMean", [squared], name + ".mean", axes=[-1], keepdims=1)
        epsilon = self.constant("epsilon", self.config.norm_epsilon, np.float32)
        raised = self.add("Add", [mean, epsilon], name + ".raised")
        root = self.add("Sqrt", [raised], name + ".root")
        scaled = self.add("Div", [x, root], name + ".scaled")
        return self.add("Mul", [scaled, self.weight(name + ".weight")], name + ".out")

    def _rotary(self) -> tuple[str, str]:
        from onnx import TensorProto

        config = self.config
        half = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
        frequencies = self.constant("rotary.frequencies", (config.rope_theta**-half)[None, None, :], np.float32)
        positions = self.add("Cast", ["position_ids"], "rotary.positions", to=TensorProto.FLOAT)
        column = self.add("Unsqueeze", [positions, self.constant("axis.last", [-1], np.int64)], "rotary.column")
        angles = self.add("Mul", [column, frequencies], "rotary.angles")
        both = self.add("Concat", [angles, angles], "rotary.both", axis=-1)
        wide = self.add("Unsqueeze", [both, self.constant("axis.one", [1], np.int64)], "rotary.wide")
        return self.add("Cos", [wide], "rotary.cos"), self.add("Sin", [wide], "rotary.sin")

    def _mask(self) -> str:
        """What to add to scores, (B, 1, T, P+T): causal by place in the keys, and nothing where the mask is zero."""
        from onnx import TensorProto

        if isinstance(self.tokens, int) and isinstance(self.past, int):
            # Known shapes need no shape arithmetic, which NPU compilers may refuse.
            row = np.arange(self.tokens)[:, None] + self.past
            allowed = np.arange(self.past + self.tokens)[None, :] <= row
            causal = self.constant("mask.causal", allowed[None, None], np.bool_)
        else:
            zero, one = self.constant("zero", 0, np.int64), self.constant("one", 1, np.int64)
            count = self._size("attention_mask", "mask.keys")
            new = self._size("input_ids", "mask.tokens")
            keys = self.add("Range", [zero, count, one], "mask.key")
            rows = self.add("Range", [self.add("Sub", [count, new], "mask.past"), count, one], "mask.row")
            column = self.add("Unsqueeze", [rows, self.constant("axis.last", [-1], np.int64)], "mask.column")
            flat = self.add("LessOrEqual", [keys, column], "mask.flat")
            causal = self.add("Unsqueeze", [flat, self.constant("axis.two_first", [0, 1], np.int64)], "mask.causal")
        given = self.add("Cast", ["attention_mask"], "mask.given", to=TensorProto.BOOL)
        real = self.add("Unsqueeze", [given, self.constant("axis.two_middle", [1, 2], np.int64)], "mask.real")
        allowed_both = self.add("And", [causal, real], "mask.allowed")
        nothing, masked = self.constant("nothing", 0.0, np.float32), self.constant("masked", _MASKED, np.float32)
        return self.add("Where", [allowed_both, nothing, masked], "mask.added")

    def _size(self, tensor: str, output: str) -> str:
        shape = self.add("Shape", [tensor], output + ".shape")
        return self.add("Gather", [shape, self.constant("one", 1, np.int64)], output)

    def _split(self, x: str, heads: int, output: str) -> str:
        config = self.config
        # A zero keeps the input's own size, so one constant serves every shape.
        shape = self.constant(f"split.{heads}", [0, 0, heads, config.head_dim], np.int64)
        return self.add("Transpose", [self.add("Reshape", [x, shape], output + ".heads")], output, perm=[0, 2, 1, 3])

    def _turn(self, x: str, cos: str, sin: str, output: str) -> str:
        half = self.config.head_dim // 2
        halves = [output + ".first", output + ".second"]
        from onnx import helper

        sizes = self.constant("halves", [half, half], np.int64)
        self.nodes.append(helper.make_node("Split", [x, sizes], halves, name=output + ".split", axis=-1))
        negative = self.add("Neg", [halves[1]], output + ".negative")
        turned = self.add("Concat", [negative, halves[0]], output + ".turned", axis=-1)
        straight = self.add("Mul", [x, cos], output + ".straight")
        return self.add("Add", [straight, self.add("Mul", [turned, sin], output + ".crossed")], output)

    def _by_key_heads(self, x: str, size: int, output: str) -> str:
        """(B, heads, T, size) as (B, key heads, heads per key head * T, size): query heads that share keys and values
        are rows of one product, and nothing has to be repeated for each."""
        return self._regrouped(x, self.config.kv_heads, size, output)

    def _by_heads(self, x: str, size: int, output: str) -> str:
        """The way back."""
        return self._regrouped(x, self.config.heads, size, output)

    def _regrouped(self, x: str, heads: int, size: int, output: str) -> str:
        """`size` 0 for as many as there are."""
        if self.config.heads == self.config.kv_heads:
            return x
        shape = self.constant(f"regrouped.{heads}.{size}", [0, heads, -1, size], np.int64)
        return self.add("Reshape", [x, shape], output)

    def _layer(self, layer: int, x: str, cos: str, sin: str, mask: str, *, grows: bool) -> str:
        config, name = self.config, f"model.layers.{layer}"
        attention = name + ".self_attn"
        normed = self._norm(x, name + ".input_layernorm")
        q = self._split(self._linear(normed, attention + ".q_proj"), config.heads, attention + ".q")
        k = self._split(self._linear(normed, attention + ".k_proj"), config.kv_heads, attention + ".k")
        v = self._split(self._linear(normed, attention + ".v_proj"), config.kv_heads, attention + ".v")
        q = self._turn(q, cos, sin, attention + ".q_turned")
        present = [f"present.{layer}.key", f"present.{layer}.value"]
        joined = present if grows else [attention + ".keys", attention + ".values"]
        k = self._turn(k, cos, sin, attention + ".k_turned" if grows else present[0])
        if not grows:
            v = self.add("Identity", [v], present[1])
        keys = self.add("Concat", [f"past_key_values.{layer}.key", k], joined[0], axis=2)
        values = self.add("Concat", [f"past_key_values.{layer}.value", v], joined[1], axis=2)
        across = self.add("Transpose", [keys], attention + ".keys_across", perm=[0, 1, 3, 2])
        scale = self.constant("scale", config.head_dim**-0.5, np.float32)
        scaled = self.add("Mul", [q, scale], attention + ".q_scaled")
        grouped = self._by_key_heads(scaled, config.head_dim, attention + ".q_grouped")
        products = self.add("MatMul", [grouped, across], attention + ".products")
        scores = self._by_heads(products, 0, attention + ".scores")
        masked = self.add("Add", [scores, mask], attention + ".masked")
        attended = self.add("Softmax", [masked], attention + ".attention", axis=-1)
        shared = self._by_key_heads(attended, 0, attention + ".attention_grouped")
        mixtures = self.add("MatMul", [shared, values], attention + ".mixtures")
        mixed = self._by_heads(mixtures, config.head_dim, attention + ".mixed")
        together = self.add("Transpose", [mixed], attention + ".together", perm=[0, 2, 1, 3])
        merged = self.add(
            "Reshape", [together, self.constant("merged", [0, 0, config.width], np.int64)], attention + ".merged"
        )
        x = self.add("Add", [x, self._linear(merged, attention + ".o_proj")], name + ".attended")
        normed = self._norm(x, name + ".post_attention_layernorm")
        gate = self._linear(normed, name + ".mlp.gate_proj")
        opened = self.add("Mul", [gate, self.add("Sigmoid", [gate], name + ".mlp.sigmoid")], name + ".mlp.silu")
        inner = self.add("Mul", [opened, self._linear(normed, name + ".mlp.up_proj")], name + ".mlp.inner")
        return self.add("Add", [x, self._linear(inner, name + ".mlp.down_proj")], name + ".out")


def _located(safetensors: Path, name: str) -> tuple[int, list[int], int, int]:
    """A tensor's ONNX type, shape, offset in the file and length, read from the safetensors header."""
    import onnx

    with safetensors.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(size))[name]
    kind = {"F16": onnx.TensorProto.FLOAT16, "F32": onnx.TensorProto.FLOAT}[entry["dtype"]]
    begin, end = entry["data_offsets"]
    return kind, entry["shape"], 8 + size + begin, end - begin


def _without_external(model: Any) -> Any:
    """A copy that the checker accepts on its own: weights kept elsewhere stand as inputs."""
    import onnx
    from onnx import helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    own = [t for t in copy.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    for tensor in copy.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(own)
    return copy
