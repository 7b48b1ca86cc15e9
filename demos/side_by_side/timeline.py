"""A picture of one question in the three modes: what was shown when, and which side was at work for it."""

from __future__ import annotations

import bisect
import textwrap
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from demos.side_by_side.palette import CLOUD, CLOUD_DARK, COLOURS, DEVICE, DEVICE_DARK, FAINT, INK, TITLES, seconds
from device_sdk.report import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from demos.side_by_side.runs import Run, Trio

#: matplotlib's own objects, which come without types.
Axes = Any

_LANE = 0.62
_LEFT = 0.105
_DOTTED = (0, (1, 1.2))


def draw_timeline(trio: Trio, footnote: str, path: Path) -> None:
    """Write a PNG to `path`, creating its folder. Needs no screen."""
    figure = Figure(figsize=(11, 7), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    end = max((run.answer.report.timeline.releases or (1.0,))[-1] for run in trio)
    beginning = _beginning(trio, end)
    grid = figure.add_gridspec(
        2, 2, left=_LEFT, right=0.965, top=0.82, bottom=0.135,
        height_ratios=(3, 1.7), hspace=0.26, width_ratios=(1.25, 1), wspace=0.13,
    )  # fmt: skip
    _headline(figure, trio)
    if beginning is None:
        _draw_shown(figure.add_subplot(grid[0, :]), trio, end * 1.03, "the whole answer")
    else:
        _draw_shown(figure.add_subplot(grid[0, 0]), trio, beginning, "the beginning")
        whole = figure.add_subplot(grid[0, 1])
        _bare(whole)
        whole.set_title("the whole answer", fontsize=9.5, color=FAINT, loc="left")
        _draw_curves(whole, trio)
        whole.set_xlim(0, end * 1.03)
        whole.set_ylim(0, None)
    _draw_lanes(figure.add_subplot(grid[1, :]), trio, end)
    figure.text(_LEFT, 0.02, textwrap.fill(footnote, 165), color=FAINT, fontsize=7.5, va="bottom")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _beginning(trio: Trio, end: float) -> float | None:
    """Seconds that show the hand-over well; None where the whole answer shows it well enough."""
    report = trio.split.answer.report
    if report.handover_index is None or report.handover_index >= len(report.timeline.releases):
        return None
    until = 1.6 * report.timeline.releases[report.handover_index]
    return until if until < 0.6 * end else None


def _headline(figure: Any, trio: Trio) -> None:
    split, alone = trio.split.answer.report, trio.on_device.answer.report
    total = split.cloud_tokens + split.device_tokens
    headline = (
        f"First token after {seconds(split.ttft_ms)} instead of {seconds(alone.ttft_ms)}, "
        f"with {split.cloud_tokens} of {total} tokens from the cloud"
    )
    asked = textwrap.shorten(trio.question.text, 90, placeholder=" …")
    figure.text(_LEFT, 0.95, headline, fontsize=14, fontweight="bold", color=INK)
    prompt = f"{split.prompt_tokens:,} prompt tokens"
    if split.refinement_ms is not None:
        prompt += f", the split's device reads {100 * split.prompt_kept:.0f}%"
    figure.text(_LEFT, 0.912, f"“{asked}”  ·  {prompt}", fontsize=10.5, color=FAINT)


# --- above: tokens shown over time ----------------------------------------------------------------------------------


def _draw_shown(axes: Axes, trio: Trio, until: float, title: str) -> None:
    _bare(axes)
    axes.set_title(title, fontsize=9.5, color=FAINT, loc="left")
    axes.set_ylabel("tokens shown", color=INK)
    axes.grid(axis="y", color="#eaeef2", linewidth=0.8)
    tokens = 1.12 * max(bisect.bisect(run.answer.report.timeline.releases, until) for run in trio) + 1
    _draw_curves(axes, trio)
    axes.set_xlim(0, until)
    axes.set_ylim(0, tokens)
    _mark_first_tokens(axes, trio, until, tokens)
    _mark_hand_over(axes, trio.split)
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="upper left",
        bbox_to_anchor=(_LEFT - 0.012, 0.9),
        ncols=6,
        frameon=False,
        fontsize=8.2,
        labelcolor=INK,
        handlelength=1.8,
        columnspacing=1.4,
    )


def _draw_curves(axes: Axes, trio: Trio) -> None:
    timeline = trio.split.answer.report.timeline
    in_cloud = trio.in_cloud.answer.report.timeline.releases
    axes.plot(in_cloud, _counts(in_cloud), color=CLOUD, linewidth=9, alpha=0.22, label="in cloud alone")
    on_device = trio.on_device.answer.report.timeline.releases
    axes.plot(
        on_device, _counts(on_device), color=DEVICE_DARK, linewidth=1.6, linestyle=_DOTTED, label="on device alone"
    )
    named = set()
    for span in trio.split.answer.report.spans:
        # From the token before, so that the line has no hole where the source changes.
        start = max(span.start - 1, 0)
        axes.plot(
            timeline.releases[start : span.stop],
            range(start + 1, span.stop + 1),
            color=COLOURS[span.source],
            linewidth=3.2,
            solid_capstyle="round",
            label=None if span.source in named else f"split, from the {span.source.value}",
        )
        named.add(span.source)
    received = _from(trio.split, Source.CLOUD)
    axes.plot(
        [timeline.arrivals[i] for i in received],
        [i + 1 for i in received],
        ".",
        color=CLOUD,
        markersize=4,
        label="received from the cloud",
    )
    axes.fill_betweenx(
        _counts(timeline.releases),
        timeline.arrivals,
        timeline.releases,
        color="#57606a",
        alpha=0.10,
        linewidth=0,
        label="in hand, not yet shown",
    )


def _counts(shown: Sequence[float]) -> range:
    return range(1, len(shown) + 1)


def _mark_first_tokens(axes: Axes, trio: Trio, until: float, tokens: float) -> None:
    for run, colour in ((trio.split, CLOUD_DARK), (trio.on_device, DEVICE_DARK)):
        ttft = run.answer.report.ttft_ms
        if ttft is None or ttft / 1000 > until:
            continue
        at, height = ttft / 1000, 0.07 * tokens
        axes.plot([at, at], [0, height], color=colour, linewidth=1.2)
        # Right of the line's beginning and below the line.
        beside, text = at + 0.045 * until, f"{TITLES[run.mode]}: {seconds(ttft)}"
        axes.text(beside, 0.032 * tokens, text, color=colour, fontsize=8.5, va="center")


def _mark_hand_over(axes: Axes, run: Run) -> None:
    index = run.answer.report.handover_index
    if index is None:
        return
    at = (run.answer.report.timeline.releases[index], index + 1)
    axes.plot(*at, "o", markersize=8.5, markerfacecolor="white", markeredgecolor=DEVICE, markeredgewidth=2.2, zorder=5)
    axes.annotate(
        f"hand-over at token {index}",
        at,
        xytext=(10, -14),
        textcoords="offset points",
        bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
        color=DEVICE_DARK,
        fontsize=9,
        fontweight="bold",
    )


# --- below: who works when ------------------------------------------------------------------------------------------


def _draw_lanes(axes: Axes, trio: Trio, end: float) -> None:
    _bare(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(
        [3, 2, 1, 0.24], ["on device", "in cloud", "split: cloud", "split: device"], color=INK, fontsize=9.5
    )
    axes.set_ylim(-0.3, 3.5)
    axes.set_xlim(0, end * 1.03)
    axes.set_xlabel("seconds since the question was asked", color=INK)
    _device_lane(axes, 3, trio.on_device, end)
    _cloud_lane(axes, 2, trio.in_cloud, end)
    _cloud_lane(axes, 1, trio.split, end)
    _device_lane(axes, 0.24, trio.split, end)


def _cloud_lane(axes: Axes, y: float, run: Run, end: float) -> None:
    report = run.answer.report
    received = _from(run, Source.CLOUD)
    if not received:
        return
    last = report.timeline.arrivals[received[-1]]
    axes.barh(y, last, height=_LANE, color=CLOUD, linewidth=0)
    text = f"{report.cloud_tokens} tokens"
    if report.cloud_busy_ms is not None:
        text += f", busy for {seconds(report.cloud_busy_ms)}"
    _label(axes, y, (0.0, last), text, end)


def _device_lane(axes: Axes, y: float, run: Run, end: float) -> None:
    """A wedge that rises as the device works through prompt and received tokens, then a bar while it writes."""
    timeline = run.answer.report.timeline
    own = _from(run, Source.DEVICE)
    begin = timeline.arrivals[own[0]] if own else max((at for at, _ in timeline.device_progress), default=0.0)
    rising = [(at, tokens) for at, tokens in timeline.device_progress if at <= begin]
    if rising:
        full = rising[-1][1] or 1
        bottom = y - _LANE / 2
        axes.fill_between(
            [0.0, *(at for at, _ in rising), begin],
            bottom,
            [bottom, *(bottom + _LANE * tokens / full for _, tokens in rising), bottom + _LANE],
            color=DEVICE,
            alpha=0.30,
            linewidth=0,
        )
        text = f"reads {full:,} tokens"
        if _fits(text, begin, end):
            axes.text(begin - 0.006 * end, y - 0.13, text, ha="right", va="center", color=DEVICE_DARK, fontsize=8)
    for at, _ in timeline.refinements:
        # Where the cloud said what matters; from there on the device leaves out the rest.
        axes.plot([at, at], [y - _LANE / 2, y + 0.6 * _LANE], color=CLOUD_DARK, linewidth=1.2)
        axes.plot(at, y + 0.6 * _LANE, "v", color=CLOUD_DARK, markersize=4.5)
    if own:
        stop = timeline.arrivals[own[-1]]
        axes.barh(y, stop - begin, left=begin, height=_LANE, color=DEVICE, linewidth=0)
        _label(axes, y, (begin, stop), f"writes {len(own)} tokens", end)


def _label(axes: Axes, y: float, bar: tuple[float, float], text: str, end: float) -> None:
    """Inside the bar where it fits, else to its right."""
    if _fits(text, bar[1] - bar[0], end):
        axes.text(sum(bar) / 2, y, text, ha="center", va="center", color="white", fontsize=8.5)
    else:
        axes.text(bar[1] + end * 0.008, y, text, ha="left", va="center", color=INK, fontsize=8.5)


def _fits(text: str, width: float, whole: float) -> bool:
    return width / whole > 0.0095 * len(text)


def _from(run: Run, source: Source) -> list[int]:
    """Indices of the tokens that `source` supplied."""
    return [i for span in run.answer.report.spans if span.source is source for i in range(span.start, span.stop)]


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#d0d7de")
    axes.tick_params(colors=FAINT)
