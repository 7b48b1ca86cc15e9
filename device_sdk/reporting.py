"""From a generation that has ended to its Report. The metrics are defined in docs/metrics.md."""

from __future__ import annotations

from itertools import pairwise

from device_sdk.generation.machine import GenerationMachine
from device_sdk.report import Answer, Report, Source, Timeline
from device_sdk.settings import Mode


def answer_of(machine: GenerationMachine, mode: Mode) -> Answer:
    """What was answered: all of it, or what was shown where the caller cancelled."""
    count = machine.shown if machine.finish_reason == "cancelled" else len(machine.output)
    ids = tuple(piece.token for piece in machine.output.pieces[:count] if piece.token is not None)
    return Answer(machine.output.text(count), ids if len(ids) == count else (), report_of(machine, mode, count))


def report_of(machine: GenerationMachine, mode: Mode, count: int) -> Report:
    origin = machine.submitted_at or 0.0
    releases = machine.releases
    gaps = [later - earlier for earlier, later in pairwise(releases)]
    sources = [piece.source for piece in machine.output.pieces[:count]]
    pace = machine.split.pace
    return Report(
        mode=mode,
        finish_reason=machine.finish_reason or "failed",
        prompt_tokens=len(machine.request.prompt),
        spans=machine.output.spans(count),
        ttft_ms=1000 * (releases[0] - origin) if releases else None,
        tpot_mean_ms=1000 * sum(gaps) / len(gaps) if gaps else None,
        max_gap_ms=1000 * max(gaps) if gaps else None,
        pace_ms=None if pace.mode == "off" else 1000 * pace.pace,
        cloud_tokens=sources.count(Source.CLOUD),
        device_tokens=sources.count(Source.DEVICE),
        handover_index=machine.handover_index,
        grant=machine.cloud.allowed,
        cloud_busy_ms=machine.cloud.busy_ms,
        agreement=machine.device.agreement,
        notices=tuple(machine.notices),
        timeline=Timeline(
            arrivals=tuple(time - origin for time in machine.arrivals),
            releases=tuple(time - origin for time in releases),
            device_progress=tuple((time - origin, tokens) for time, tokens in machine.device.progress),
            grants=tuple((time - origin, tokens) for time, tokens in machine.cloud.grants),
        ),
    )
