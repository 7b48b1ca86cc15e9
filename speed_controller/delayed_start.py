"""When a device that saves energy begins to read: w(l) of DiSCo (arXiv 2502.11417), its device-constrained case. Pure.

Short prompts are read at once, as they cost little. Longer ones are left to the cloud for a while; the wait is the
cloud's time to first token that only few requests exceed, so that a slow cloud costs no more than that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from speed_controller.errors import SettingError

#: Share of the requests whose tail is guarded.
TAIL = 0.05


@dataclass(frozen=True, slots=True)
class DelayedStart:
    """Prompts of fewer than `threshold` tokens are read at once, others after `longest_wait` seconds."""

    threshold: int
    longest_wait: float

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise SettingError("threshold", self.threshold, "at least 0 tokens")
        if not (math.isfinite(self.longest_wait) and self.longest_wait >= 0):
            raise SettingError("longest_wait", self.longest_wait, "a finite time of at least 0 s")

    def wait(self, prompt_tokens: int) -> float:
        """w(l), in seconds."""
        return 0.0 if prompt_tokens < self.threshold else self.longest_wait

    @classmethod
    def calibrated(cls, prompts: Sequence[int], cloud_ttft: Sequence[float], budget: float) -> DelayedStart:
        """What keeps the prompt tokens that the device reads without need within the share `budget` (0 to 1) of all.

        `prompts` (tokens) and `cloud_ttft` (seconds): a history, in no particular order. Part of the budget guards the
        tail of the cloud's times, the rest lets the shortest prompts begin at once. Raises SettingError.
        """
        if not 0 <= budget <= 1:
            raise SettingError("budget", budget, "a share from 0 to 1")
        if len(prompts) == 0 or len(cloud_ttft) == 0:
            raise SettingError("history", (len(prompts), len(cloud_ttft)), "at least one prompt and one time")
        tail = min(TAIL, budget)
        total, threshold, so_far = sum(prompts), 0, 0
        for length, count in sorted(Counter(prompts).items()):
            so_far += length * count
            if so_far > (budget - tail) * total:
                break
            threshold = length + 1
        return cls(threshold, _quantile(sorted(cloud_ttft), 1 - tail))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between neighbours, as NumPy's."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
