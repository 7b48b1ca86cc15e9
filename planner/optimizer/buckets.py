"""From a workload to buckets of prompt lengths, in two passes and bounded memory."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from planner.core import Workload
from planner.errors import PlannerError, WorkloadError
from planner.optimizer.problem import Traffic
from planner.workloads.summary import Summary, Tally, summarize

#: Output lengths that stand for a bucket.
POINTS = 8
#: A bucket's longest prompt is this quantile of its prompts, as no promise is for more than 99 of 100 answers: one
#: stray request does not decide for all.
LONGEST = 0.99


@dataclass(slots=True)
class _Bucket:
    prompt: Tally = field(default_factory=Tally)
    output: Tally = field(default_factory=Tally)


def limits_for(summary: Summary, count: int) -> list[int]:
    """Upper ends of `count` buckets, the last one open, each with about as many prompt tokens as the others."""
    total = sum(tokens * number for tokens, number in summary.prompt.counts.items())
    ends: list[int] = []
    seen = 0
    for tokens in sorted(summary.prompt.counts):
        seen += tokens * summary.prompt.counts[tokens]
        if len(ends) < count - 1 and seen >= total * (len(ends) + 1) / count:
            ends.append(tokens)
    return ends[:-1] if ends and ends[-1] == max(summary.prompt.counts) else ends


def make_buckets(workload: Workload, count: int = 8, ends: list[int] | None = None) -> tuple[list[Traffic], Summary]:
    """The buckets of `workload`: `ends`, or `count` of about equal prompt tokens. Raises PlannerError."""
    if count < 1:
        raise PlannerError(f"{count} buckets are asked for; at least 1 is expected")
    summary = summarize(workload)
    if not summary.requests:
        raise WorkloadError(
            f"the workload has no requests ({summary.skipped.count} rows are no requests): {workload.source}"
        )
    ends = limits_for(summary, count) if ends is None else sorted(set(ends))
    tallies = [_Bucket() for _ in range(len(ends) + 1)]
    for request in workload:
        bucket = tallies[bisect.bisect_left(ends, request.prompt_tokens)]
        bucket.prompt.add(request.prompt_tokens)
        bucket.output.add(request.output_tokens)
    made = [
        _traffic(tally, end, summary)
        for tally, end in zip(tallies, [*ends, None], strict=True)
        if tally.prompt.total or end is None
    ]
    return made, summary


def _traffic(tally: _Bucket, end: int | None, summary: Summary) -> Traffic:
    if not tally.prompt.total:
        # Nobody asked for so long a prompt; whoever does is treated like the longest that was seen.
        tally = _Bucket(Tally(), summary.output)
        tally.prompt.add(max(summary.prompt.counts))
        share = 0.0
    else:
        share = tally.prompt.total / summary.requests
    return Traffic(
        up_to=end,
        share=share,
        prompt=round(tally.prompt.mean()),
        longest_prompt=tally.prompt.quantiles(LONGEST)[0],
        longest_output=tally.output.quantiles(LONGEST)[0],
        outputs=_bins(tally.output),
    )


def _bins(tally: Tally) -> tuple[int, ...]:
    """Means of POINTS equal parts, shortest answers first: their mean is the bucket's."""
    size = tally.total / POINTS
    means: list[int] = []
    room, filled, tokens = size, 0.0, 0.0
    for value in sorted(tally.counts):
        left = float(tally.counts[value])
        while left > 1e-9:
            taken = min(left, room - filled)
            tokens += taken * value
            filled += taken
            left -= taken
            if filled >= room - 1e-9:
                means.append(max(1, round(tokens / room)))
                filled = tokens = 0.0
    return tuple(means) if means else (1,)
