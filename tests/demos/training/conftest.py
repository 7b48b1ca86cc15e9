"""The bare engines, without the product's own code between them and the files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


class Onnx:
    """One sequence on the dynamic graph, its cache growing with every call."""

    file = "model.onnx"

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / self.file), options, providers=["CPUExecutionProvider"]
        )
        self.past_inputs = [each for each in self.session.get_inputs() if each.name.startswith("past")]
        self.past = self.empty()
        self.length = 0

    def empty(self, rows: int = 1) -> dict[str, np.ndarray]:
        return {each.name: np.zeros((rows, each.shape[1], 0, each.shape[3]), np.float32) for each in self.past_inputs}

    def run(self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, past: dict[str, Any]) -> list[np.ndarray]:
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **past}
        return self.session.run(None, feeds)

    def forward(self, ids: np.ndarray) -> np.ndarray:
        end = self.length + len(ids)
        positions = np.arange(self.length, end)[None]
        logits, *present = self.run(np.asarray(ids)[None], np.ones((1, end), np.int64), positions, self.past)
        self.past = dict(zip(self.past, present, strict=True))
        self.length = end
        return logits[0]


class FixedOnnx(Onnx):
    """The same on the fixed-shape graph: padded chunks, and a cache this side writes into."""

    file = "model.fixed.onnx"

    def empty(self, rows: int = 1) -> dict[str, np.ndarray]:
        assert rows == 1
        return {each.name: np.zeros(each.shape, np.float32) for each in self.past_inputs}

    def forward(self, ids: np.ndarray) -> np.ndarray:
        chunk = self.session.get_inputs()[0].shape[1]
        slots = self.past_inputs[0].shape[2]
        found = []
        for start in range(0, len(ids), chunk):
            part = np.asarray(ids[start : start + chunk])
            count, end = len(part), self.length + len(part)
            padded, positions = np.zeros((1, chunk), np.int64), np.zeros((1, chunk), np.int64)
            padded[0, :count], positions[0, :count] = part, np.arange(self.length, end)
            mask = np.zeros((1, slots + chunk), np.int64)
            mask[0, : self.length] = mask[0, slots : slots + count] = 1
            logits, *present = self.run(padded, mask, positions, self.past)
            found.append(logits[0, :count])
            for buffer, new in zip(self.past.values(), present, strict=True):
                buffer[:, :, self.length : end] = new[:, :, :count]
            self.length = end
        return np.concatenate(found)


def _llama(folder: Path, context: int = 1024) -> Any:
    import llama_cpp

    return llama_cpp.Llama(
        str(folder / "model.gguf"), n_ctx=context, n_threads=1, logits_all=True, verbose=False, no_perf=True
    )


@pytest.fixture(scope="session")
def models() -> Path:
    return Path(__file__).parents[3] / "demos" / "models"


@pytest.fixture(scope="session")
def dynamic() -> type[Onnx]:
    return Onnx


@pytest.fixture(scope="session")
def fixed() -> type[FixedOnnx]:
    return FixedOnnx


@pytest.fixture(scope="session")
def llama() -> Callable[[Path], Any]:
    return _llama
