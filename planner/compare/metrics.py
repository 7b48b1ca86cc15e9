"""What a run's outcomes come to. Definitions: docs/metrics.md, "Comparing policies"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planner.core import DeviceProfile
    from planner.simulator.outcome import Outcomes


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a quantity over answers. Milliseconds where the name says so."""

    mean: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Spread | None:
        """None where there is no value."""
        known = values[~np.isnan(values)]
        if not len(known):
            return None
        p50, p95, p99 = np.quantile(known, (0.5, 0.95, 0.99))
        return cls(float(known.mean()), float(p50), float(p95), float(p99))

    def as_json(self) -> dict[str, float]:
        return {"mean": self.mean, "p50": self.p50, "p95": self.p95, "p99": self.p99}


@dataclass(frozen=True, slots=True)
class Metrics:
    """Per answer on average, unless a name says otherwise."""

    answers: int
    #: Answers whose tokens were played one by one: those that gaps, TPOT and stalls are of.
    played: int
    failed_share: float
    rejected_share: float
    ttft_ms: Spread | None
    tpot_ms: Spread | None
    max_gap_ms: Spread | None
    stall_share: float | None
    cloud_seconds: float
    cloud_tokens: float
    cloud_prefill_seconds: float
    slot_seconds: float
    device_seconds: float
    #: None where the device's profile does not say what it draws.
    device_joules: float | None
    bytes_up: float
    bytes_down: float


def measure(outcomes: Outcomes, device: DeviceProfile) -> Metrics:
    def mean(name: str) -> float:
        return float(outcomes.column(name).mean()) if len(outcomes) else 0.0

    shown, gaps = outcomes.column("shown_seconds"), outcomes.column("output_tokens") - 1
    played = ~np.isnan(shown)
    several = played & (gaps > 0)
    total = float(shown[several].sum())
    prefill, decode = mean("device_prefill_seconds"), mean("device_decode_seconds")
    joules = None
    if device.prefill_watts is not None and device.decode_watts is not None:
        joules = prefill * device.prefill_watts + decode * device.decode_watts
    return Metrics(
        answers=len(outcomes),
        played=int(played.sum()),
        failed_share=mean("failed"),
        rejected_share=mean("rejected"),
        ttft_ms=Spread.of(1000 * outcomes.column("ttft")),
        tpot_ms=Spread.of(1000 * shown[several] / gaps[several]),
        max_gap_ms=Spread.of(1000 * outcomes.column("max_gap")[several]),
        stall_share=float(outcomes.column("stalled")[several].sum()) / total if total else None,
        cloud_seconds=mean("cloud_seconds"),
        cloud_tokens=mean("cloud_tokens"),
        cloud_prefill_seconds=mean("cloud_prefill_seconds"),
        slot_seconds=mean("slot_seconds"),
        device_seconds=prefill + decode,
        device_joules=joules,
        bytes_up=mean("bytes_up"),
        bytes_down=mean("bytes_down"),
    )


def metrics_json(metrics: Metrics) -> dict[str, Any]:
    """Units in the names, as everywhere in the JSON of `pd-plan compare`."""

    def spread(value: Spread | None) -> dict[str, float] | None:
        return None if value is None else value.as_json()

    return {
        "answers": metrics.answers,
        "played": metrics.played,
        "failed_share": metrics.failed_share,
        "rejected_share": metrics.rejected_share,
        "ttft_ms": spread(metrics.ttft_ms),
        "tpot_ms": spread(metrics.tpot_ms),
        "max_gap_ms": spread(metrics.max_gap_ms),
        "stall_share": metrics.stall_share,
        "cloud_seconds_per_request": metrics.cloud_seconds,
        "cloud_tokens_per_request": metrics.cloud_tokens,
        "slot_seconds_per_request": metrics.slot_seconds,
        "device_seconds_per_request": metrics.device_seconds,
        "device_joules_per_request": metrics.device_joules,
        "bytes_up_per_request": metrics.bytes_up,
        "bytes_down_per_request": metrics.bytes_down,
    }
