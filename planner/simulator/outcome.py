"""What became of one answer, and of all of them: one row of numbers each, so that a million fit in memory."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speed_controller.settings import PaceSettings

NAN = float("nan")


@dataclass(slots=True)
class Outcome:
    """Times in seconds; NaN where it is not known or there is none."""

    arrival: float
    prompt_tokens: float
    output_tokens: float
    ttft: float = NAN
    #: From the first token shown to the last, the largest gap, and time in gaps beyond the slowest even pace. Known of
    #: the answers that were chosen to be played token by token: a sample that how they go has no part in.
    shown_seconds: float = NAN
    max_gap: float = NAN
    stalled: float = NAN
    cloud_tokens: float = 0.0
    #: Prompt tokens that the cloud's prefix cache spared.
    cached_tokens: float = 0.0
    #: Engine time, of it for prefill, and the time that a place for decoding was held.
    cloud_seconds: float = 0.0
    cloud_prefill_seconds: float = 0.0
    slot_seconds: float = 0.0
    device_prefill_seconds: float = 0.0
    device_decode_seconds: float = 0.0
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    #: 1 where the cloud would not take it.
    rejected: float = 0.0
    #: 1 where the answer never came.
    failed: float = 0.0
    #: 1 where the state machine was driven live, as its dealings with the cloud could not be known beforehand.
    live: float = 0.0

    def shown(self, times: NDArray[np.float64], pace: PaceSettings) -> None:
        """Take note of when each token was shown."""
        gaps = np.diff(times)
        self.shown_seconds = float(times[-1] - times[0]) if len(times) else NAN
        self.max_gap = float(gaps.max()) if len(gaps) else 0.0
        self.stalled = float(np.maximum(gaps - pace.pace_max, 0.0).sum())


COLUMNS = tuple(each.name for each in fields(Outcome))


@dataclass(slots=True)
class Outcomes:
    """Rows in the order in which answers ended."""

    _rows: array[float] = field(default_factory=lambda: array("d"))

    def add(self, outcome: Outcome) -> None:
        self._rows.extend([getattr(outcome, name) for name in COLUMNS])

    def __len__(self) -> int:
        return len(self._rows) // len(COLUMNS)

    def column(self, name: str) -> NDArray[np.float64]:
        rows = np.frombuffer(self._rows, dtype=np.float64).reshape(-1, len(COLUMNS))
        return rows[:, COLUMNS.index(name)].copy()


def paced(arrivals: NDArray[np.float64], pace: float) -> NDArray[np.float64]:
    """When tokens are shown that wait for nothing but their arrival and an even pace: sᵢ = max(aᵢ, sᵢ₋₁ + pace), which
    is the speed controller's mode `fixed`. For policies that are not ours."""
    even = np.arange(len(arrivals)) * pace
    shown: NDArray[np.float64] = np.maximum.accumulate(arrivals - even) + even
    return shown
