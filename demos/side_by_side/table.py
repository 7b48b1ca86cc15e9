"""The figures of all runs in one table, and what the split saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from demos.side_by_side.palette import CLOUD, DEVICE, TITLES, seconds
from device_sdk.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demos.side_by_side.runs import Run, Trio
    from device_sdk.report import Report


def results_table(trios: Sequence[Trio]) -> Table:
    """Fits 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("question,\nprompt tokens", no_wrap=True)
    for heading in ("first\ntoken", "per\ntoken", "largest\ngap", "from\ncloud", "from\ndevice", "cloud\nbusy"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("correct", no_wrap=True)
    for number, trio in enumerate(trios, start=1):
        if number > 1:
            table.add_row()
        prompt_tokens = max(run.answer.report.prompt_tokens for run in trio)
        table.add_row(Text(f"{number}. {trio.question.kind}, {prompt_tokens:,}", style="dim"))
        for run in trio:
            table.add_row(*_row(run), style=_style(run))
    return table


def _row(run: Run) -> list[str | Text]:
    report = run.answer.report
    return [
        f"   {TITLES[run.mode]}",
        seconds(report.ttft_ms),
        seconds(report.tpot_mean_ms),
        seconds(report.max_gap_ms),
        Text(str(report.cloud_tokens), CLOUD if report.cloud_tokens else "dim"),
        Text(str(report.device_tokens), DEVICE if report.device_tokens else "dim"),
        seconds(report.cloud_busy_ms) if report.cloud_tokens else "none",
        verdict(run.correct),
    ]


def _style(run: Run) -> str:
    return "bold" if run.mode is Mode.SPLIT else ""


def verdict(correct: bool | None) -> str:
    """Against the exact answer; a dash where nobody knows it."""
    return {True: "yes", False: "no", None: "–"}[correct]


def prompt_kept(report: Report) -> str:
    """What share of the prompt the device read, and why all of it where the guard decided so."""
    guard = report.guard
    if guard is not None and guard.decision != "passed":
        why = f"{guard.decision}: {guard.reason}" if guard.reason else guard.decision
        return f"the device read all of the prompt ({why})"
    return f"the device read {100 * report.prompt_kept:.0f}% of the prompt"


def savings_lines(trios: Sequence[Trio]) -> list[str]:
    """What the split saved, one line for each question."""
    return [f"{number}. {_savings(trio)}" for number, trio in enumerate(trios, start=1)]


def _savings(trio: Trio) -> str:
    saved = trio.savings
    split, in_cloud = trio.split.answer.report, trio.in_cloud.answer.report
    parts = []
    if saved.ttft:
        faster = saved.ttft < 1
        times = 1 / saved.ttft if faster else saved.ttft
        parts.append(f"first token {times:.1f} times {'sooner' if faster else 'later'} than on the device")
    if saved.cloud_busy:
        parts.append(
            f"cloud busy for {seconds(split.cloud_busy_ms)} instead of {seconds(in_cloud.cloud_busy_ms)}, "
            f"{1 / saved.cloud_busy:.1f} times less"
        )
    elif saved.cloud_tokens is not None:
        parts.append(f"{split.cloud_tokens} tokens from the cloud instead of {in_cloud.cloud_tokens}")
    if split.refinement_ms is not None:
        parts.append(prompt_kept(split))
    if split.agreement is not None:
        parts.append(f"the device's model ranked {100 * split.agreement:.0f}% of the cloud's tokens first")
    return "; ".join(parts) or "nothing to compare"
