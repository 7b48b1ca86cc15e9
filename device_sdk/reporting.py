"""From a generation that has ended to its Report. The metrics are defined in docs/metrics.md."""

from __future__ import annotations

from itertools import pairwise

from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.spans import Spans
from device_sdk.report import Answer, Report, Source, TextSpan, Timeline
from device_sdk.settings import Mode
from model_runtime.prompt_map import PromptMap


def answer_of(machine: GenerationMachine, mode: Mode, where: PromptMap | None = None, route_reason: str = "") -> Answer:
    """What was answered: all of it, or what was shown where the caller cancelled. `where` the messages stand in the
    prompt; None where the device reads all of it."""
    count = machine.showing.shown if machine.finish_reason == "cancelled" else len(machine.output)
    ids = tuple(piece.token for piece in machine.output.pieces[:count] if piece.token is not None)
    return Answer(
        machine.output.text(count),
        ids if len(ids) == count else (),
        report_of(machine, mode, count, where, route_reason),
        machine.output.thought(count),
    )


def report_of(machine: GenerationMachine, mode: Mode, count: int, where: PromptMap | None, route_reason: str) -> Report:
    showing, refinement = machine.showing, machine.refinement
    origin, releases = showing.begun_at, showing.releases
    visible = showing.visible_releases
    gaps = [later - earlier for earlier, later in pairwise(visible)]
    sources = [piece.source for piece in machine.output.pieces[:count]]
    pace = machine.split.pace
    return Report(
        mode=mode,
        finish_reason=machine.finish_reason or "failed",
        prompt_tokens=len(machine.request.prompt),
        route_reason=route_reason,
        reused_tokens=machine.device.prompt.reused,
        spans=machine.output.spans(count),
        ttft_ms=1000 * (releases[0] - origin) if releases else None,
        ttft_visible_ms=1000 * (visible[0] - origin) if visible else None,
        thinking_tokens=sum(piece.tokens for piece in machine.output.pieces[:count] if piece.hidden),
        tpot_mean_ms=1000 * sum(gaps) / len(gaps) if gaps else None,
        max_gap_ms=1000 * max(gaps) if gaps else None,
        pace_ms=None if pace.mode == "off" else 1000 * pace.pace,
        cloud_tokens=sources.count(Source.CLOUD),
        device_tokens=sources.count(Source.DEVICE),
        handover_index=machine.handover_index,
        grant=machine.cloud.allowed,
        cloud_busy_ms=machine.cloud.busy_ms,
        agreement=machine.device.agreement.share,
        prompt_kept=machine.device.prompt.kept_share,
        prompt_read=() if where is None else _text_spans(machine.device.prompt.taken, where),
        refinement_ms=1000 * (refinement.history[0][0] - origin) if refinement.history else None,
        refinement_stages=refinement.stages,
        guard=refinement.guard,
        reread=refinement.reread,
        notices=tuple(machine.notices),
        timeline=Timeline(
            arrivals=tuple(time - origin for time in showing.arrivals),
            releases=tuple(time - origin for time in releases),
            device_progress=tuple((time - origin, tokens) for time, tokens in machine.device.progress),
            grants=tuple((time - origin, tokens) for time, tokens in machine.cloud.grants),
            refinements=tuple((time - origin, kept) for time, kept in refinement.history),
        ),
    )


def _text_spans(tokens: Spans, where: PromptMap) -> tuple[TextSpan, ...]:
    """Of each message what stands in `tokens`; the template between messages is nobody's text."""
    read = where.characters_of(tokens)
    return tuple(
        TextSpan(message, max(start, first) - first, min(stop, last) - first)
        for message, (first, last) in enumerate(where.messages)
        for start, stop in read
        if max(start, first) < min(stop, last)
    )
