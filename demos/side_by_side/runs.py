"""What one run of the demo brought, and the object that `pd-demo --json` prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from device_sdk.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from demos.side_by_side.questions import Question
    from device_sdk.report import Answer

#: In the order in which they are run and shown: alone, alone, together.
MODES = (Mode.ONLY_ON_DEVICE, Mode.ONLY_IN_CLOUD, Mode.SPLIT)


@dataclass(frozen=True, slots=True)
class Run:
    """One question answered in one mode."""

    question: Question
    mode: Mode
    answer: Answer

    @property
    def correct(self) -> bool | None:
        return self.question.correct(self.answer.text)

    def as_json(self) -> dict[str, Any]:
        report = self.answer.report
        return {
            "mode": self.mode.value,
            "question": self.question.text,
            "kind": self.question.kind,
            "prompt_tokens": report.prompt_tokens,
            "ttft_ms": report.ttft_ms,
            "tpot_mean_ms": report.tpot_mean_ms,
            "max_gap_ms": report.max_gap_ms,
            "pace_ms": report.pace_ms,
            "prompt_kept": report.prompt_kept,
            "refinement_ms": report.refinement_ms,
            "refinement_stages": report.refinement_stages,
            "guard": None if report.guard is None else asdict(report.guard),
            "cloud_tokens": report.cloud_tokens,
            "device_tokens": report.device_tokens,
            "handover_index": report.handover_index,
            "cloud_busy_ms": report.cloud_busy_ms,
            "agreement": report.agreement,
            "correct": self.correct,
            "finish_reason": report.finish_reason,
            "token_ids": list(self.answer.token_ids),
            "text": self.answer.text,
        }


@dataclass(frozen=True, slots=True)
class Trio:
    """One question in the three modes."""

    on_device: Run
    in_cloud: Run
    split: Run

    @property
    def question(self) -> Question:
        return self.split.question

    def __iter__(self) -> Iterator[Run]:
        return iter((self.on_device, self.in_cloud, self.split))

    @property
    def savings(self) -> Savings:
        return Savings(
            ttft=_ratio(self.split.answer.report.ttft_ms, self.on_device.answer.report.ttft_ms),
            cloud_busy=_ratio(self.split.answer.report.cloud_busy_ms, self.in_cloud.answer.report.cloud_busy_ms),
            cloud_tokens=_ratio(self.split.answer.report.cloud_tokens, self.in_cloud.answer.report.cloud_tokens),
        )


@dataclass(frozen=True, slots=True)
class Savings:
    """What the split took, as a share of what the other way took; None where that is not known."""

    #: Time to first token, of the device's own.
    ttft: float | None
    #: The cloud's busy time, of the whole answer in the cloud.
    cloud_busy: float | None
    #: Tokens from the cloud, of the whole answer in the cloud.
    cloud_tokens: float | None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def as_json(machine: Mapping[str, Any], profiles: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """The whole object of `pd-demo --json`."""
    return {"machine": dict(machine), "profiles": dict(profiles), "runs": [run.as_json() for run in runs]}
