"""How an answer is divided between cloud and device, and the least grant that avoids a stall. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from speed_controller.errors import InfeasibleSplitError, SettingError
from speed_controller.settings import PaceSettings

#: Of the prompt, at most: a calibrated service leaves out more where little matters.
#: `python -m benchmarks.refinement` says what this costs in answers.
DEFAULT_KEEP_RATIO = 0.5


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """What the planner decides for a prompt. Raises SettingError naming the field that is out of range."""

    #: Tokens that the cloud may produce; None: as many as `grant_needed` says.
    grant: int | None = None
    #: Share of the prompt that refinement keeps at most; None (or 1.0): no refinement.
    keep_ratio: float | None = DEFAULT_KEEP_RATIO
    pace: PaceSettings = field(default_factory=PaceSettings)
    #: Prompt tokens in one prefill pass of the device; None: the engine's choice.
    chunk: int | None = None
    #: The largest grant ever asked for, extensions included.
    max_grant: int = 256
    #: Prompts of fewer tokens are not refined: there is little to save, and each span weighs more.
    refine_from: int = 512
    #: Tokens that refinement may keep however short the prompt: what a long answer rests on does not shrink with it.
    keep_at_least: int = 384
    #: Whether the cloud, too, answers from what refinement keeps, which it then reads a second time: what is beside the
    #: point misleads a model, too, and both sides go on from the same prompt; but the first token comes later by that
    #: reading. None: where the prompt is longer than the device's context.
    reread: bool | None = None
    #: Share of the latest received tokens that the device must agree with to take over, up to `max_grant` tokens; None:
    #: it takes over as soon as it can.
    min_agreement: float | None = None

    def __post_init__(self) -> None:
        if self.max_grant < 0:
            raise SettingError("max_grant", self.max_grant, "at least 0 tokens")
        if self.grant is not None and not 0 <= self.grant <= self.max_grant:
            raise SettingError("grant", self.grant, f"0 to max_grant, {self.max_grant} tokens, or None")
        if self.keep_ratio is not None and not 0 < self.keep_ratio <= 1:
            raise SettingError("keep_ratio", self.keep_ratio, "a share above 0 and at most 1, or None")
        if self.chunk is not None and self.chunk < 1:
            raise SettingError("chunk", self.chunk, "at least 1 token, or None")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise SettingError("min_agreement", self.min_agreement, "a share from 0 to 1, or None")
        for name in ("refine_from", "keep_at_least"):
            if getattr(self, name) < 0:
                raise SettingError(name, getattr(self, name), "at least 0 tokens")

    def keep_ratio_for(self, prompt_tokens: int) -> float | None:
        """The share of a prompt of this length to keep; None where the device is to read all of it."""
        if self.keep_ratio is None or prompt_tokens < max(1, self.refine_from):
            return None
        ratio = max(self.keep_ratio, self.keep_at_least / prompt_tokens)
        return ratio if ratio < 1 else None


def grant_needed(
    *, ready_without: float, cloud_ttft: float, pace: float, prefill_rate: float, device_tpot: float
) -> int:
    """The fewest cloud tokens for a hand-over without a stall: k ≥ (ready(0) − T1) / (τ − 1/r).

    `ready_without`: seconds after the request at which the device would have prefilled the prompt alone, ready(0);
    `cloud_ttft`: the cloud's time to first token, T1; `pace`: seconds per shown token, τ; `prefill_rate`: the device's,
    tokens per second, r (the k tokens go through its prefill too); `device_tpot`: seconds per token after hand-over.
    0 where the device is there first. Raises InfeasibleSplitError where the device never catches up (τ ≤ 1/r) or
    cannot keep the pace after the hand-over (τ < device_tpot).
    """
    for name, value in (("prefill_rate", prefill_rate), ("pace", pace)):
        if not (math.isfinite(value) and value > 0):
            raise SettingError(name, value, "a finite value above 0")
    for name, value in (("ready_without", ready_without), ("cloud_ttft", cloud_ttft), ("device_tpot", device_tpot)):
        if not (math.isfinite(value) and value >= 0):
            raise SettingError(name, value, "a finite time of at least 0 s")
    if pace <= 1.0 / prefill_rate:
        raise InfeasibleSplitError(
            f"at {pace} s per shown token the device, which prefills {prefill_rate} tokens/s, never catches up with "
            f"the cloud; use a pace above {1.0 / prefill_rate} s"
        )
    if pace < device_tpot:
        raise InfeasibleSplitError(
            f"at {pace} s per shown token the device, which takes {device_tpot} s per token, falls behind after the "
            f"hand-over; use a pace of at least {device_tpot} s"
        )
    return max(0, math.ceil((ready_without - cloud_ttft) / (pace - 1.0 / prefill_rate)))


def refined_length(left: int, *, keep_ratio: float, arrival: float, prefill_rate: float, least: int = 0) -> int:
    """Of `left` prompt tokens, how many the device will prefill if a refinement is on its way: p + ρ(L − p).

    It comes in `arrival` seconds; until then the device, which does not wait, prefills p = r · arrival of them at
    `prefill_rate` tokens per second, r. Of the others it keeps the share `keep_ratio`, ρ, and at least `least`, what is
    protected. So the device is ready in t_ref + ρ(L − p)/r. Raises SettingError.
    """
    if left < 0:
        raise SettingError("left", left, "at least 0 tokens")
    if not 0 < keep_ratio <= 1:
        raise SettingError("keep_ratio", keep_ratio, "a share above 0 and at most 1")
    if not (math.isfinite(arrival) and arrival >= 0):
        raise SettingError("arrival", arrival, "a finite time of at least 0 s")
    if not (math.isfinite(prefill_rate) and prefill_rate > 0):
        raise SettingError("prefill_rate", prefill_rate, "a finite value above 0")
    before = min(left, int(arrival * prefill_rate))
    rest = left - before
    return before + min(rest, max(math.ceil(keep_ratio * rest), least))
