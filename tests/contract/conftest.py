"""Every engine over the tiny random model, and what it must answer, worked out in NumPy.

An engine is loaded once for all tests and named by what it is and which model it runs, such as `onnx-fixed/qwen2`.
Tests leave no sequence open; what breaks or shuts down an engine loads one of its own.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from demos.training import export_hf
from model_runtime.core import Engine
from model_runtime.emulated import EmulatedEngine
from model_runtime.errors import EngineUnavailableError
from model_runtime.onnx import OnnxEngine
from model_runtime.onnx.providers import CPU, OPENVINO, QNN, check
from model_runtime.profiles import HardwareProfile
from model_runtime.testing import ScriptedEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from demos.training.architecture import DecoderConfig, Weights

ENGINES = [
    "onnx/llama",
    "onnx/qwen2",
    "onnx-fixed/llama",
    "onnx-fixed/qwen2",
    "onnx-npu/llama",
    "onnx-npu/qwen2",
    "onnx-npu-w8a16/llama",
    "llama.cpp/llama",
    "llama.cpp/qwen2",
    "emulated/llama",
    "scripted",
]


# Slow or not installed everywhere, so in the suite where it is asked for: see the targets test-qnn and test-openvino.
ENGINES += [f"{kind}/llama" for kind in os.environ.get("PD_CONTRACT", "").split()]

#: Bits of the weights and the execution provider of each kind that `pd-models export-npu` makes.
_BUNDLES = {
    "onnx-npu": (32, CPU),
    "onnx-npu-w8a16": (8, CPU),
    "qnn": (8, QNN),
    "openvino": (8, OPENVINO),
}
#: Of logits whose standard deviation is 1.5, with the tiny model's random weights; the root mean square is below 0.1.
_TOLERANCE_8_BITS = 1.5


@dataclass(frozen=True)
class Case:
    """An engine, how close its numbers are to exact ones, and the exact ones (none for an engine without a model)."""

    name: str
    engine: Engine
    load: Callable[[], Engine]
    #: Largest difference of a logit that arithmetic explains (llama.cpp keeps KV in float16).
    tolerance: float
    exact: NumpyDecoder | None
    #: Its weights are rounded to 8 bits: where two tokens are nearly as likely it may say the other one.
    rounded: bool = False

    @contextmanager
    def sequences(self, count: int = 1) -> Iterator[list[int]]:
        """Open sequences, closed again whatever happens."""
        opened = [self.engine.open() for _ in range(count)]
        try:
            yield opened
        finally:
            for sequence in opened:
                self.engine.close(sequence)


class NumpyDecoder:
    """A decoder written down as plainly as it goes, to compare engines with. No cache: all tokens at once."""

    def __init__(self, config: DecoderConfig, weights: Weights) -> None:
        self.config = config
        self.weights = weights

    def run(self, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Logits (tokens, vocabulary) and attention (layers, heads, tokens, tokens)."""
        config, count = self.config, len(tokens)
        x = self.weights["model.embed_tokens.weight"][tokens].astype(np.float64)
        attention = np.zeros((config.layers, config.heads, count, count))
        for layer in range(config.layers):
            prefix = f"model.layers.{layer}."
            normed = self._norm(x, prefix + "input_layernorm")
            q = self._rotate(self._heads(normed, prefix + "self_attn.q_proj"))
            k = self._rotate(self._heads(normed, prefix + "self_attn.k_proj"))
            v = self._heads(normed, prefix + "self_attn.v_proj")
            outputs = []
            for head in range(config.heads):
                shared = head // (config.heads // config.kv_heads)
                scores = q[:, head] @ k[:, shared].T / np.sqrt(config.head_dim)
                scores[np.triu_indices(count, 1)] = -np.inf
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                attention[layer, head] = weights / weights.sum(axis=1, keepdims=True)
                outputs.append(attention[layer, head] @ v[:, shared])
            x = x + self._linear(np.concatenate(outputs, axis=1), prefix + "self_attn.o_proj")
            normed = self._norm(x, prefix + "post_attention_layernorm")
            gate = self._linear(normed, prefix + "mlp.gate_proj")
            inner = gate / (1 + np.exp(-gate)) * self._linear(normed, prefix + "mlp.up_proj")
            x = x + self._linear(inner, prefix + "mlp.down_proj")
        head = "model.embed_tokens" if config.tied else "lm_head"
        return self._linear(self._norm(x, "model.norm"), head), attention

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.run(tokens)[0][-1].argmax()))
        return tokens[len(prompt) :]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        root = np.sqrt((x**2).mean(axis=1, keepdims=True) + self.config.norm_epsilon)
        return x / root * self.weights[name + ".weight"]

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[name + ".weight"].T + self.weights.get(name + ".bias", 0)

    def _heads(self, x: np.ndarray, name: str) -> np.ndarray:
        return self._linear(x, name).reshape(len(x), -1, self.config.head_dim)

    def _rotate(self, x: np.ndarray) -> np.ndarray:
        half = self.config.head_dim // 2
        angles = np.arange(len(x))[:, None] * self.config.rope_theta ** -(np.arange(half) / half)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=2)


@pytest.fixture(scope="session")
def cases(
    tiny_model: Callable[[str], Path], tiny_bundle: Callable[[str, int], Path]
) -> Iterator[Callable[[str], Case]]:
    made: dict[str, Case] = {}

    def get(name: str) -> Case:
        if name not in made:
            made[name] = _make_case(name, tiny_model, tiny_bundle)
        return made[name]

    yield get
    for case in made.values():
        case.engine.shutdown()


@pytest.fixture(scope="session", params=ENGINES)
def case(request: pytest.FixtureRequest, cases: Callable[[str], Case]) -> Case:
    """Every engine in turn."""
    return cases(request.param)


@pytest.fixture(scope="session", params=[name for name in ENGINES if name != "scripted"])
def model_case(request: pytest.FixtureRequest, cases: Callable[[str], Case]) -> Case:
    """Every engine that runs a model."""
    return cases(request.param)


@pytest.fixture(scope="session")
def load_engine() -> Callable[[str, Path], Engine]:
    """An engine of a kind (the part of a case's name before the slash) over a model folder; to be shut down."""
    return lambda kind, folder: _loader(kind, folder)()


def _make_case(name: str, tiny_model: Callable[[str], Path], tiny_bundle: Callable[[str, int], Path]) -> Case:
    kind, _, architecture = name.partition("/")
    if kind == "scripted":
        return Case(name, _scripted(), _scripted, 0, None)
    folder = tiny_model(architecture)
    exact = NumpyDecoder(*export_hf.load(folder))
    if kind in _BUNDLES:
        weights, provider = _BUNDLES[kind]
        require_provider(provider)
        bundle = tiny_bundle(architecture, weights)

        def load_bundle() -> Engine:
            return OnnxEngine.load(bundle, threads=1, providers=(provider,))

        tolerance = 1e-3 if weights == 32 else _TOLERANCE_8_BITS
        return Case(name, load_bundle(), load_bundle, tolerance, exact, rounded=weights != 32)
    load = _loader(kind, folder)
    return Case(name, load(), load, 0.1 if kind == "llama.cpp" else 1e-3, exact)


def require_provider(provider: str) -> None:
    """Skip, with the reason, where a session cannot have this execution provider."""
    try:
        check([provider], allow_cpu_fallback=False)
    except EngineUnavailableError as error:
        pytest.skip(str(error))


def _scripted() -> Engine:
    return ScriptedEngine(context_length=160, layers=3)


def _loader(kind: str, folder: Path) -> Callable[[], Engine]:
    match kind:
        case "onnx":
            return lambda: OnnxEngine.load(folder, threads=1)
        case "onnx-fixed":
            return lambda: OnnxEngine.load(folder / "model.fixed.onnx", threads=1)
        case "emulated":
            return lambda: EmulatedEngine(OnnxEngine.load(folder, threads=1), _QUICK)
        case "llama.cpp":
            if importlib.util.find_spec("llama_cpp") is None:
                pytest.skip("llama_cpp is not installed: pip install pd-device[llama]")
            from model_runtime.llama import LlamaEngine

            layers = tuple(range(export_hf.load(folder)[0].layers))
            return lambda: LlamaEngine.load(folder / "model.gguf", threads=1, tap_layers=layers)
        case _:
            raise ValueError(kind)


# Hardly slower than any machine, so that tests take no longer than they must.
_QUICK = HardwareProfile(
    name="quick",
    title="an emulated machine",
    source="made up for tests",
    prefill_tokens_per_s=((1, 1e5), (1000, 1e5)),
    decode_ms=((1, 0.1), (1000, 0.1)),
)
