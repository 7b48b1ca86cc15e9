"""The steps of `pd-cloud calibrate`: probe, fit on one half, measure on the other, write."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud_service.refinement import calibration
from cloud_service.refinement.attention import ROWS, Head, default_layers
from cloud_service.refinement.calibrate.fitting import (
    best_answer_heads,
    best_heads,
    fit_floors,
    fit_guard,
    kept_share,
    kept_whole,
    precision_of,
    recall,
    told_apart,
)
from cloud_service.refinement.calibrate.looking import Look, look
from cloud_service.refinement.calibrate.probes import Probe, ProbeError
from cloud_service.refinement.calibration import Calibration
from cloud_service.refinement.guard import Boundary
from model_runtime.core import Engine

#: Keep ratios at which recall is measured; what floors leave of the first one is measured, too.
RATIOS = (0.5, 0.25, 0.1)

#: Fewer probes with evidence than this choose heads by chance.
LEAST_PROBES = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    calibration: Calibration
    #: What the defaults reach on the same held-out half.
    by_default: dict[str, float]


def calibrate(
    engine: Engine, probes: Sequence[Probe], *, progress: Callable[[int, int], None] = lambda done, of: None
) -> Outcome:
    """Probe `engine` and fit on every second probe of each kind; what is measured is measured on the others.

    Raises ProbeError for too few usable probes, and what the engine raises.
    """
    looks: list[Look] = []
    for number, probe in enumerate(probes, start=1):
        if (seen := look(engine, probe, ROWS)) is not None:
            looks.append(seen)
        progress(number, len(probes))
    telling = [seen for seen in looks if seen.evidence.any()]
    flat = [seen for seen in looks if not seen.evidence.any()]
    if len(telling) < LEAST_PROBES:
        raise ProbeError(
            f"{len(telling)} probes with evidence fit this model's context; at least {LEAST_PROBES} are needed: "
            "ask for more (--count), or shorter ones (--tokens)"
        )
    fit, held_out = telling[::2], telling[1::2]
    heads, _ = best_heads(fit)
    answering = best_answer_heads(fit, heads)
    if answering and precision_of(held_out, heads, answering) <= precision_of(held_out, heads):
        answering = ()  # no help on what it was not chosen by
    boundary = fit_guard(flat[::2], fit, heads)
    tapped = {layer for layer, _ in (*heads, *answering, *(boundary.heads if boundary else ()))}
    floors = fit_floors(fit, heads, tapped)
    measured = _measure(held_out, flat[1::2], heads, boundary)
    if floors is not None:
        measured["recall_with_floors"] = recall(held_out, heads, RATIOS[0], floors=floors)
        measured["tokens_with_floors"] = kept_share(held_out, heads, RATIOS[0], floors)
        measured["tokens_without"] = kept_share(held_out, heads, RATIOS[0])
        measured["one_line_or_several_told"] = told_apart(held_out, heads, floors)
    if answering:
        measured["second_stage_average_precision"] = precision_of(held_out, heads, answering)
        for ratio in RATIOS:
            measured[f"second_stage_recall_at_{ratio}"] = recall(held_out, heads, ratio, answering)
    info = engine.info
    usual = [(layer, head) for layer in default_layers(info.layers) for head in range(info.heads)]
    return Outcome(
        Calibration(info.model, info.engine, heads, answering, ROWS, boundary, floors, _rounded(measured)),
        _rounded(_measure(held_out, flat[1::2], usual, None)),
    )


def write(outcome: Outcome, engine: Engine, path: Path) -> None:
    """Raises CalibrationError, OSError."""
    calibration.save(path, engine.info.model_fingerprint, outcome.calibration)


def report(outcome: Outcome) -> str:
    """For people."""
    found = outcome.calibration
    floors = "any importance, for want of probes that rest on several lines"
    if found.floors is not None:
        several, single = found.floors.several, found.floors.single
        floors = f"{several:.0%} of the best line's importance, {single:.0%} where one line is asked for"
    lines = [
        f"heads (layer.head): {_names(found.heads)}",
        f"of the second stage: {_names(found.answer_heads) or 'none that helps'}",
        f"the guard watches: {_names(found.boundary.heads) if found.boundary else 'nothing, for want of probes'}",
        f"lines are kept from: {floors}",
        f"{'on held-out probes':34}{'calibrated':>12}{'default':>12}",
    ]
    for name, value in found.measured.items():
        usual = outcome.by_default.get(name)
        lines.append(f"{name:34}{value:12.1%}{'' if usual is None else format(usual, '12.1%')}")
    return "\n".join(lines)


def _names(heads: Sequence[Head]) -> str:
    return ", ".join(f"{layer}.{head}" for layer, head in heads)


def _measure(
    telling: Sequence[Look], flat: Sequence[Look], heads: Sequence[Head], boundary: Boundary | None
) -> dict[str, float]:
    values = {"average_precision": precision_of(telling, heads)}
    values |= {f"recall_at_{ratio}": recall(telling, heads, ratio) for ratio in RATIOS}
    values["kept_whole_with_evidence"] = kept_whole(telling, heads, boundary)
    values["kept_whole_without"] = kept_whole(flat, heads, boundary)
    return values


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items() if not math.isnan(value)}
