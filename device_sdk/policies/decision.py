"""Who may answer, with how much of the cloud, and why. Pure: the same question in the same situation, the same word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from device_sdk.errors import ConfigurationError
from device_sdk.policies.situation import Privacy, Situation, Thermal
from device_sdk.settings import Mode
from speed_controller.delayed_start import DelayedStart


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. `mode`: as the caller or the client wants it; `has_…`: which sides there are."""

    mode: Mode
    prompt_tokens: int
    has_device: bool = True
    has_cloud: bool = True
    #: Seconds that the device would take to its first token alone; None: not known.
    device_ready: float | None = None
    #: Cloud tokens that the user still allows today; None: no cap.
    cloud_tokens_left: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason`: for people, part of `Report.route_reason`; empty where nothing speaks against what was asked."""

    mode: Mode
    #: The largest grant of a split; None: as the settings say.
    max_grant: int | None = None
    #: Whether the cloud may be asked which part of the prompt matters.
    refine: bool = True
    #: Seconds that the device leaves it to the cloud before it begins to read.
    device_wait: float = 0.0
    reason: str = ""


class Policy(Protocol):
    def decide(self, ask: Ask, situation: Situation) -> Decision:
        """Called for each generation before anything is begun, on the event loop's thread. No I/O, no clock."""
        ...


@dataclass(frozen=True, slots=True)
class StandardPolicy:
    """In this order; the first that applies decides who answers.

    1. What is secret stays on the device; what is private goes to the cloud only if the device cannot answer.
    2. With the day's cloud tokens used up, the device answers alone.
    3. A hot device, or one whose battery is low and not charging, leaves the answer to the cloud.
    4. A first token that the device has in time by itself needs no cloud; one that it has not, does.
    5. On a metered network the cloud gives `metered_grant` tokens at most.

    A mode that names one side alone (`ONLY_…`) is the caller's word: only secrecy and the cap refuse it.
    `delayed_start`: on battery, when the device begins to read; None: at once.
    """

    low_battery: float = 0.15
    hot: Thermal = Thermal.SERIOUS
    metered_grant: int = 32
    delayed_start: DelayedStart | None = None

    def decide(self, ask: Ask, situation: Situation) -> Decision:
        """Raises ConfigurationError where only the cloud could answer and must not."""
        if situation.privacy is Privacy.SECRET:
            return _alone(ask, "the prompt is secret")
        if ask.cloud_tokens_left == 0 and ask.mode is not Mode.ONLY_ON_DEVICE:
            return _alone(ask, "the cloud tokens of the day are used up")
        if ask.mode in (Mode.ONLY_ON_DEVICE, Mode.ONLY_IN_CLOUD) or not (ask.has_device and ask.has_cloud):
            return Decision(ask.mode)
        if situation.privacy is Privacy.PRIVATE:
            return Decision(Mode.PREFER_ON_DEVICE, refine=False, reason="the prompt is private")
        if (why := self._spared(situation)) is not None:
            return Decision(Mode.PREFER_IN_CLOUD, reason=why)
        return self._shared(ask, situation)

    def _spared(self, situation: Situation) -> str | None:
        """Why the device is to be spared."""
        if situation.thermal is not None and situation.thermal >= self.hot:
            return f"the device is hot ({situation.thermal.name})"
        if situation.battery is not None and not situation.charging and situation.battery < self.low_battery:
            return f"the battery is at {100 * situation.battery:.0f}%"
        return None

    def _shared(self, ask: Ask, situation: Situation) -> Decision:
        mode, reasons = ask.mode, list[str]()
        if situation.deadline is not None and ask.device_ready is not None:
            ready = f"the device has its first token in {ask.device_ready:.2g} s of {situation.deadline:.2g}"
            if ask.device_ready > situation.deadline and mode is Mode.PREFER_ON_DEVICE:
                mode = Mode.SPLIT
                reasons.append(ready)
            elif ask.device_ready <= situation.deadline and mode is Mode.SPLIT:
                mode = Mode.PREFER_ON_DEVICE
                reasons.append(ready)
        grant, wait = None, 0.0
        if mode is Mode.SPLIT:
            if situation.metered:
                grant = self.metered_grant
                reasons.append(f"the network is metered: {grant} tokens at most from the cloud")
            if self.delayed_start is not None and situation.battery is not None and not situation.charging:
                wait = self.delayed_start.wait(ask.prompt_tokens)
                if wait > 0:
                    reasons.append(
                        f"on battery: the device leaves the beginning to the cloud, for {wait:.2g} s at most"
                    )
        return Decision(mode, grant, device_wait=wait, reason="; ".join(reasons))


def _alone(ask: Ask, why: str) -> Decision:
    """On the device, as the cloud must not be asked."""
    if not ask.has_device or ask.mode is Mode.ONLY_IN_CLOUD:
        raise ConfigurationError(
            f"{why}: it must not go to the cloud, and {ask.mode.value} leaves nobody else to answer"
        )
    return Decision(Mode.ONLY_ON_DEVICE, refine=False, reason="" if ask.mode is Mode.ONLY_ON_DEVICE else why)
