"""Distributions of lengths, and how they are written: `512`, `100-4000` (uniform), `1024~0.8` (log-normal)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.errors import WorkloadError


@dataclass(frozen=True, slots=True)
class Lengths:
    """Whole tokens from `least` to `most`: log-normal with this median and this standard deviation of the logarithm;
    uniform where `sigma` is None."""

    least: int
    most: int
    median: float = 0.0
    sigma: float | None = None

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """Raises WorkloadError."""
        try:
            if "~" in text:
                median, sigma = (float(part) for part in text.split("~"))
                if median >= 1 and math.isfinite(median) and 0 <= sigma <= 4:
                    return cls(1, 1 << 20, median, sigma)
            elif "-" in text:
                least, most = (int(part) for part in text.split("-"))
                if 1 <= least <= most:
                    return cls(least, most)
            elif (fixed := int(text)) >= 1:
                return cls(fixed, fixed)
        except ValueError:
            pass
        raise WorkloadError(
            f"{text!r} is no distribution of lengths; write 512, 100-4000 (uniform) or 1024~0.8 "
            "(log-normal: median and standard deviation of the logarithm, at most 4)"
        )

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        if self.sigma is None:
            return rng.integers(self.least, self.most, count, endpoint=True)
        drawn = np.rint(self.median * np.exp(self.sigma * rng.standard_normal(count)))
        return np.clip(drawn, self.least, self.most).astype(np.int64)
