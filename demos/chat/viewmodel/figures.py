"""An answer's report in words and figures. The metrics are defined in docs/metrics.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demos.side_by_side.palette import seconds
from device_sdk import Mode

if TYPE_CHECKING:
    from demos.chat.viewmodel.trace import Trace
    from device_sdk import Report

MODE_NAMES = {
    Mode.SPLIT: "Split",
    Mode.ONLY_ON_DEVICE: "On device only",
    Mode.PREFER_ON_DEVICE: "Prefer device",
    Mode.PREFER_IN_CLOUD: "Prefer cloud",
    Mode.ONLY_IN_CLOUD: "In cloud only",
}
MODE_HINTS = {
    Mode.SPLIT: "The cloud begins, the device finishes",
    Mode.ONLY_ON_DEVICE: "Nothing leaves this machine",
    Mode.PREFER_ON_DEVICE: "The cloud only where the device fails",
    Mode.PREFER_IN_CLOUD: "The device only where the cloud fails",
    Mode.ONLY_IN_CLOUD: "Needs no model here",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric as it is shown, with its definition."""

    label: str
    value: str
    hint: str


def figures(report: Report, price_per_million: float | None = None) -> list[Figure]:
    """Everything that is known about an answer. `price_per_million`: of cloud output tokens, in any currency."""
    agreement = "–" if report.agreement is None else f"{report.agreement:.0%}"
    return [
        Figure("First token", seconds(report.ttft_ms), "Time to first token: from sending to the first one shown"),
        Figure("Speed", rate(report.tpot_mean_ms), "Tokens shown per second, on average, after the first one"),
        Figure("Largest gap", seconds(report.max_gap_ms), "The longest wait between two tokens"),
        Figure("From the cloud", _count(report.cloud_tokens), "Tokens that the cloud supplied"),
        Figure("From the device", _count(report.device_tokens), "Tokens that this device supplied"),
        Figure("Prompt", _count(report.prompt_tokens), "Length of the whole prompt, by the device's tokenizer"),
        Figure("Prompt read", f"{report.prompt_kept:.0%}", "Share of the prompt that the device read, or still would"),
        Figure("Agreement", agreement, "Of the cloud's tokens, those that the device would have said itself"),
        Figure("Cloud busy", seconds(report.cloud_busy_ms), "Time that the cloud's engine spent on this answer"),
        Figure("Cloud saved", saved(report, price_per_million), "Answer tokens that the cloud did not have to write"),
    ]


def summary(report: Report) -> str:
    """One quiet line below an answer."""
    parts = []
    if report.ttft_ms is not None:
        parts.append(f"{seconds(report.ttft_ms)} to first token")
    if report.tpot_mean_ms:
        parts.append(rate(report.tpot_mean_ms))
    tokens = []
    if report.cloud_tokens:
        tokens.append(f"{report.cloud_tokens:,} cloud")
    if report.device_tokens:
        tokens.append(f"{report.device_tokens:,} device")
    if tokens:
        parts.append(" + ".join(tokens) + " tokens")
    return "  ·  ".join(parts)


def live_summary(trace: Trace) -> str:
    """The same while the answer streams, from what was shown so far."""
    if not trace.releases:
        return "Waiting for the first token"
    parts = [f"{seconds(1000 * trace.releases[0])} to first token"]
    if len(trace.releases) > 1:
        mean = (trace.releases[-1] - trace.releases[0]) / (len(trace.releases) - 1)
        parts.append(rate(1000 * mean))
    parts.append(f"{len(trace.releases):,} token" + ("s" if len(trace.releases) > 1 else ""))
    return "  ·  ".join(parts)


def route(report: Report) -> str:
    """Who answered, and why it went so."""
    name = MODE_NAMES[report.mode]
    if report.handover_index is not None:
        how = f"the cloud began, the device took over at token {report.handover_index + 1}"
    elif report.cloud_tokens and not report.device_tokens:
        how = "the cloud gave the whole answer"
        if report.mode is Mode.SPLIT:
            how += ", before the device had read the prompt"
    elif report.device_tokens and not report.cloud_tokens:
        how = "the device gave the whole answer"
    elif report.cloud_tokens and report.device_tokens:
        how = "both sides gave parts"
    else:
        how = "no token was given"
    read = f" The device read {report.prompt_kept:.0%} of the prompt." if report.prompt_kept < 1 else ""
    return f"{name}: {how}{_ending(report)}.{read}"


def saved(report: Report, price_per_million: float | None) -> str:
    total = report.cloud_tokens + report.device_tokens
    if not total:
        return "–"
    share = f"{report.device_tokens / total:.0%}"
    if price_per_million is None:
        return share
    return f"{share} ({report.device_tokens * price_per_million / 1e6:.6f})"


def rate(tpot_ms: float | None) -> str:
    return f"{1000 / tpot_ms:.0f} tok/s" if tpot_ms else "–"


def _ending(report: Report) -> str:
    return {"length": "; it ended at the length limit", "cancelled": "; it was stopped", "failed": "; it failed"}.get(
        report.finish_reason, ""
    )


def _count(tokens: int) -> str:
    return f"{tokens:,}"
