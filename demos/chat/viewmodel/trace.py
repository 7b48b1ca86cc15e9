"""When each token of an answer came and was shown, and how far the device was: what the timeline draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from device_sdk import Report, Source

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class Trace:
    """Seconds since the question was sent. Grows while the answer streams, and is exact once its report is there."""

    releases: list[float] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    #: As many as are known: all of them from a report.
    arrivals: list[float] = field(default_factory=list)
    #: (time, tokens of prompt and answer that the device has read).
    device: list[tuple[float, int]] = field(default_factory=list)
    prompt_tokens: int = 0
    handover: int | None = None
    #: Share of the prompt that the device reads, 1 without a refinement.
    kept: float = 1.0
    #: The even pace aimed at, in seconds a token; None where pacing is off.
    pace: float | None = None

    def shown(self, at: float, source: Source) -> None:
        self.releases.append(at)
        self.sources.append(source)

    def progressed(self, at: float, arrived: int, read: int, prompt: int) -> None:
        self.arrivals += [at] * (arrived - len(self.arrivals))
        if read and (not self.device or self.device[-1][1] != read):
            self.device.append((at, read))
        self.prompt_tokens = prompt

    @classmethod
    def of(cls, report: Report) -> Trace:
        timeline = report.timeline
        count = len(timeline.releases)
        sources = [Source.CLOUD] * count
        for span in report.spans:
            stop = min(span.stop, count)
            sources[span.start : stop] = [span.source] * max(0, stop - span.start)
        return cls(
            list(timeline.releases),
            sources,
            list(timeline.arrivals),
            list(timeline.device_progress),
            report.prompt_tokens,
            report.handover_index,
            report.prompt_kept,
            None if report.pace_ms is None else report.pace_ms / 1000,
        )

    @property
    def end(self) -> float:
        """The last moment of anything."""
        last: Iterable[float] = (*self.releases[-1:], *self.arrivals[-1:], *(at for at, _ in self.device[-1:]))
        return max(last, default=0.0)

    def largest_gap(self) -> tuple[int, float] | None:
        """(token, seconds before it); None below two tokens."""
        gaps = [(later - earlier, i + 1) for i, (earlier, later) in enumerate(pairwise(self.releases))]
        if not gaps:
            return None
        gap, token = max(gaps)
        return token, gap
