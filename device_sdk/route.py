"""Who answers, and why: the mode asked for, the plan, and what the device has read already. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from device_sdk.generation.grants import initial_grant
from device_sdk.planned import MODES
from device_sdk.settings import Mode
from speed_controller.around_plan import around_plan
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings
from speed_controller.split_config import Route as Plan
from speed_controller.split_config import SplitConfig

#: Seconds. A device that begins within it seems to answer at once, however fast the cloud may be.
AT_ONCE = 0.1


@dataclass(frozen=True, slots=True)
class Route:
    mode: Mode
    settings: SplitSettings
    #: For people; `Report.route_reason`.
    reason: str


@dataclass(frozen=True, slots=True)
class Work:
    """What the device has to read: `unread` tokens of a prompt of `prompt`, where earlier turns left out `gaps` of what
    is read, and where `room` of the prompt fit its context at most (None: not known, as there is no device)."""

    prompt: int
    unread: int
    gaps: int = 0
    room: int | None = None

    @property
    def warm(self) -> bool:
        return self.unread < self.prompt and not self.gaps

    @property
    def too_long(self) -> bool:
        return self.room is not None and self.prompt > self.room


def route(
    asked: Mode, split: SplitSettings | SplitConfig, work: Work, device: DeviceForecast, cloud: CloudForecast
) -> Route:
    """In `Mode.SPLIT` who answers depends on what is left for the device to read, in any other mode on nothing.

    What costs the device time is what it has not read, so that is the length by which a plan's bucket is found. Where
    earlier turns left something out, all of it may have to be read again.
    """
    length = work.unread if work.warm else work.prompt
    if isinstance(split, SplitConfig):
        bucket = split.bucket(length)
        settings, chosen = split.settings(bucket), MODES[bucket.route]
        if bucket.route is Plan.SPLIT:
            settings = around_plan(settings, length, work.prompt, device, cloud)
        limit = "any length" if bucket.up_to is None else f"up to {bucket.up_to:,}"
        planned = f"the plan's route for prompts of {limit} is {bucket.route.value!r}, {length:,} tokens are to be read"
    else:
        settings, chosen, planned = split, Mode.SPLIT, f"{length:,} tokens are to be read"
    if asked is not Mode.SPLIT:
        return Route(asked, settings, f"{asked.value} was asked for")
    if work.too_long:
        room = f"{work.prompt:,} tokens are more than the device's context has room for ({work.room:,})"
        return Route(Mode.SPLIT, settings, f"{room}: the cloud says which of them it reads")
    if work.gaps:
        left_out = f"earlier turns left out {work.gaps:,} tokens of the prompt"
        return Route(Mode.SPLIT, settings, f"{left_out}: the cloud says which of them this question needs")
    if chosen is Mode.SPLIT and work.warm and (reason := _at_once(settings, work, device, cloud)) is not None:
        return Route(Mode.PREFER_ON_DEVICE, settings, reason)
    return Route(chosen, settings, planned)


def _at_once(settings: SplitSettings, work: Work, device: DeviceForecast, cloud: CloudForecast) -> str | None:
    """Why a warm device needs no cloud: it is there before the cloud would be, or at once."""
    ready = device.ready_in(work.unread)
    if ready is None or settings.grant is not None:  # nobody knows, or the caller has decided
        return None
    begins = max(ready, device.tpot or 0.0)
    grant = initial_grant(replace(settings, grant=None), work.unread, work.prompt, device, cloud)
    if grant > 0 and begins > AT_ONCE:
        return None
    new = f"{work.unread:,} of {work.prompt:,} prompt tokens are new, read in {1000 * begins:.0f} ms"
    first = "" if cloud.ttft is None else f"; the cloud's last first token took {1000 * cloud.ttft:.0f} ms"
    return f"the device is warm: {new}{first}"
