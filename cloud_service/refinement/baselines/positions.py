"""What needs not even the text: where a sentence stands, and chance."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from cloud_service.refinement.baselines.by_unit import parts, spread
from cloud_service.refinement.contract import NO_NEEDS

if TYPE_CHECKING:
    from cloud_service.refinement.contract import Evidence, Needs, Prompt
    from model_runtime.core import FloatArray


class HeadTail:
    """The beginning and the end, in equal shares: what cutting out the middle keeps."""

    name = "head-tail"

    @property
    def needs(self) -> Needs:
        return NO_NEEDS

    def score(self, prompt: Prompt, evidence: Evidence) -> FloatArray:
        return np.abs(np.linspace(-1, 1, len(prompt.tokens))).astype(np.float32)


class RandomUnits:
    """Any lines or sentences; the same ones for the same prompt and seed."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    @property
    def needs(self) -> Needs:
        return NO_NEEDS

    def score(self, prompt: Prompt, evidence: Evidence) -> FloatArray:
        _, _, found = parts(prompt)
        rng = np.random.default_rng((self._seed, zlib.crc32(b"".join(prompt.pieces))))
        return spread(prompt, found, rng.random(len(found)))
