"""The range of every tensor over some prompts, read with a cache that fills chunk by chunk as it will in use."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater, TensorsData

from model_runtime.errors import BadInputError
from model_runtime.export.graphs import copy
from model_runtime.onnx.layout import ATTENTION_MASK, INPUT_IDS, POSITION_IDS, is_past, is_present

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from model_runtime.export.surgery import Halves

Feeds = "dict[str, NDArray[Any]]"


def calibrate(float_halves: Halves, slots: int, prompts: Sequence[Sequence[int]]) -> TensorsData:
    """Least and greatest value of each of the decoder's tensors. A prompt's rest that fills no whole pass is left out:
    padding is no evidence. Raises BadInputError where nothing is left."""
    tokens = float_halves.tokens
    whole = [list(prompt[: min(len(prompt), slots) // tokens * tokens]) for prompt in prompts]
    if not any(whole):
        longest = max((len(prompt) for prompt in prompts), default=0)
        raise BadInputError(
            f"calibration needs at least one prompt of {tokens} tokens (a whole pass); the longest has {longest}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decoder.onnx"
        # Saving moves a model's weights out of it.
        onnx.save(copy(float_halves.decoder), str(path), save_as_external_data=True, location="decoder.data")
        decoder = _session(path)
        host = _session(float_halves.host.SerializeToString())
        reader = _Reader(_passes(host, decoder, [ids for ids in whole if ids], tokens, slots))
        calibrater = MinMaxCalibrater(
            str(path), augmented_model_path=str(Path(folder) / "augmented.onnx"), use_external_data_format=True
        )
        calibrater.augment_graph()
        calibrater.create_inference_session()
        calibrater.collect_data(reader)
        return calibrater.compute_data()


def _passes(
    host: ort.InferenceSession, decoder: ort.InferenceSession, prompts: list[list[int]], tokens: int, slots: int
) -> Iterator[dict[str, NDArray[Any]]]:
    past = {value.name: np.zeros(value.shape, np.float32) for value in decoder.get_inputs() if is_past(value.name)}
    outputs = [value.name for value in decoder.get_outputs() if is_present(value.name)]
    for prompt in prompts:
        for start in range(0, len(prompt), tokens):
            mask = np.zeros((1, slots + tokens), np.int64)
            mask[0, :start] = mask[0, slots:] = 1
            given = host.run(
                None,
                {
                    INPUT_IDS: np.array([prompt[start : start + tokens]], np.int64),
                    ATTENTION_MASK: mask,
                    POSITION_IDS: np.arange(start, start + tokens, dtype=np.int64)[None],
                },
            )
            feeds = dict(zip((value.name for value in host.get_outputs()), given, strict=True)) | past
            yield feeds
            for name, new in zip(outputs, decoder.run(outputs, feeds), strict=True):
                past[name.replace("present", "past_key_values")][:, :, start : start + tokens] = new


def _session(source: Any) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(
        str(source) if isinstance(source, Path) else source, options, providers=["CPUExecutionProvider"]
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, passes: Iterator[dict[str, NDArray[Any]]]) -> None:
        self._passes = passes

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._passes, None)
