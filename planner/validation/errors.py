"""Predicted beside measured, and by how much they differ. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from planner.validation.trials import Trial


@dataclass(frozen=True, slots=True)
class Row:
    """`error`: the mean over answers of |predicted - measured| ÷ measured; for a quantile, of the one figure."""

    metric: str
    answers: int
    predicted: float
    measured: float
    error: float


#: Metric → what was measured, where there is such a thing, and what was forecast.
_FIGURES: dict[str, tuple[Callable[[Trial], float | None], Callable[[Trial], float]]] = {
    "ttft_ms": (lambda trial: trial.report.ttft_ms, lambda trial: trial.forecast.ttft_mean * 1000),
    "tpot_ms": (lambda trial: trial.report.tpot_mean_ms, lambda trial: trial.forecast.tpot_mean * 1000),
    "cloud_seconds": (
        lambda trial: None if trial.report.cloud_busy_ms is None else trial.report.cloud_busy_ms / 1000,
        lambda trial: trial.forecast.cloud_seconds,
    ),
    "cloud_tokens": (lambda trial: float(trial.report.cloud_tokens), lambda trial: trial.forecast.cloud_tokens),
}


@dataclass(frozen=True, slots=True)
class BesideDefault:
    """The plan's settings and the SDK's default ones on the same requests, in turns. `gap_ms`: the 99th percentile of
    answers' largest gaps, and `tokens` the cloud's per answer; (planned, default)."""

    answers: int
    gap_ms: tuple[float, float]
    tokens: tuple[float, float]


def beside_default(trials: Sequence[Trial]) -> BesideDefault | None:
    """None where no answer was asked for at the default settings, too, with a gap in both."""
    pairs = [(trial.report, trial.default) for trial in trials if trial.default is not None]
    sides = [
        (
            [report.max_gap_ms for report in side if report.max_gap_ms is not None],
            [report.cloud_tokens for report in side],
        )
        for side in zip(*pairs, strict=True)
    ]
    if not sides or not all(gaps for gaps, _ in sides):
        return None
    gaps = [float(np.quantile(gaps, 0.99)) for gaps, _ in sides]
    tokens = [statistics.mean(counts) for _, counts in sides]
    return BesideDefault(len(pairs), (gaps[0], gaps[1]), (tokens[0], tokens[1]))


def rows(trials: Sequence[Trial]) -> list[Row]:
    """A row for each metric that any answer has, and the largest gap's high quantile."""
    found = [row for metric in _FIGURES if (row := _mean(metric, trials)) is not None]
    gaps = [(trial.report.max_gap_ms, trial.forecast.max_gap_p99 * 1000) for trial in trials]
    pairs = sorted((measured, predicted) for measured, predicted in gaps if measured is not None)
    if pairs:
        at = min(len(pairs) - 1, round(0.99 * len(pairs)))
        highest, promised = pairs[at][0], max(predicted for _, predicted in pairs)
        # A forecast of a quantile errs where it is exceeded; what stays below it is no error.
        found.append(Row("max_gap_ms", len(pairs), promised, highest, max(0.0, highest / promised - 1)))
    return found


def errors(found: Sequence[Row]) -> dict[str, float]:
    """For the configuration's `[error]`: what `solve` widens its quantiles by."""
    return {row.metric: round(row.error, 4) for row in found}


def _mean(metric: str, trials: Sequence[Trial]) -> Row | None:
    read, expected = _FIGURES[metric]
    # A figure of 0 (a device that answers alone costs the cloud nothing) has no relative error.
    pairs = [(expected(trial), measured) for trial in trials if (measured := read(trial))]
    if not pairs:
        return None
    return Row(
        metric,
        len(pairs),
        statistics.mean(predicted for predicted, _ in pairs),
        statistics.mean(measured for _, measured in pairs),
        statistics.mean(abs(predicted - measured) / measured for predicted, measured in pairs),
    )
