"""A figure with its aim, as it is printed and as it goes into the JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`values` are the samples that `value` stands for. `aim` None: nothing was promised."""

    name: str
    value: float
    unit: str = ""
    aim: str | None = None
    reached: bool = True
    values: list[float] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        verdict = "" if self.aim is None else f"; aim {self.aim}: {'reached' if self.reached else 'MISSED'}"
        spread = f" ({_spread(self.values)})" if len(self.values) > 1 else ""
        return f"{self.name}: {self.value:.3g} {self.unit}".rstrip() + spread + verdict


def median(name: str, values: Sequence[float], unit: str = "", at_most: float | None = None) -> Figure:
    value = statistics.median(values)
    aim, reached = (None, True) if at_most is None else (f"at most {at_most:g}", value <= at_most)
    return Figure(name, value, unit, aim, reached, list(values))


def _spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
    return f"{low:.3g} to {high:.3g}, 10th to 90th percentile, n={len(ordered)}"
