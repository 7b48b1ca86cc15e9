"""A time that varies: its first three cumulants, and quantiles of the shifted log-normal that has the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Quantity:
    """`third` is the third central moment. Sums assume independent terms: then all three add up."""

    mean: float
    variance: float = 0.0
    third: float = 0.0

    @classmethod
    def fixed(cls, value: float) -> Quantity:
        return cls(value)

    @classmethod
    def exponential(cls, mean: float) -> Quantity:
        return cls(mean, mean**2, 2 * mean**3)

    @classmethod
    def relative(cls, mean: float, deviation: float) -> Quantity:
        """Log-normal, with a standard deviation of `deviation` × `mean`."""
        spread = deviation * mean
        return cls(mean, spread**2, (deviation**3 + 3 * deviation) * spread**3)

    @classmethod
    def sometimes(cls, probability: float, mean: float, *, varies: bool) -> Quantity:
        """0, but with `probability` exponential with this mean or, where it does not vary, this mean itself."""
        second, third = (2 * mean**2, 6 * mean**3) if varies else (mean**2, mean**3)
        one, two, three = probability * mean, probability * second, probability * third
        return cls(one, two - one**2, three - 3 * one * two + 2 * one**3)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.mean + other.mean, self.variance + other.variance, self.third + other.third)

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance)

    def quantile(self, share: float) -> float:
        """The value that it does not exceed with probability `share`.

        A log-normal's skewness is x³ + 3x, with x its standard deviation ÷ its mean, both without the shift: so x, and
        with it the distribution, is known in closed form. Without skewness a normal.
        """
        if self.variance <= 0:
            return self.mean
        skewness = self.third / self.deviation**3
        if skewness < 1e-6:
            return self.mean + self.deviation * normal_quantile(share)
        x = 2 * math.sinh(math.asinh(skewness / 2) / 3)
        width = math.log1p(x * x)
        return self.mean + self.deviation * (math.exp(math.sqrt(width) * normal_quantile(share) - width / 2) - 1) / x


@lru_cache(maxsize=64)
def normal_quantile(share: float) -> float:
    """z with P(Z ≤ z) = `share` for a standard normal Z."""
    return NormalDist().inv_cdf(share)
