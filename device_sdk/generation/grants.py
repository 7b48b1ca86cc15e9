"""How much to ask of the cloud. Pure."""

from __future__ import annotations

import math

from speed_controller.errors import InfeasibleSplitError
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings, grant_needed

#: Asked for while nothing is known of the device's speed; an extension follows if it is too little.
UNKNOWN_DEVICE_GRANT = 32

#: On top of what the closed form says, for jitter of the device and of the link: a share, and a few tokens.
MARGIN_SHARE, MARGIN_TOKENS = 0.1, 2


def initial_grant(
    split: SplitSettings, tokens: int, prompt: int, device: DeviceForecast, cloud: CloudForecast, wait: float = 0.0
) -> int:
    """The grant as set, or what bridges at the speeds known, with a margin; 0 where the device is there before the
    cloud. `tokens`: what the device has to prefill of a prompt of `prompt` tokens, received ones left aside, once it
    begins in `wait` seconds."""
    if split.grant is not None:
        return split.grant
    ready = device.ready_in(tokens)
    if ready is None:
        return min(UNKNOWN_DEVICE_GRANT, split.max_grant)
    return with_margin(split, least_grant(split, wait + ready, cloud.ttft_of(prompt) or 0.0, device))


def least_grant(split: SplitSettings, ready: float, cloud_ttft: float, device: DeviceForecast) -> int:
    """What `grant_needed` says for a device that has the prompt read `ready` seconds after the request and a cloud
    whose first token comes after `cloud_ttft`; the largest there is where none is enough."""
    per_token = device.ready_in(1)
    if not per_token:
        return 0  # a device that takes no time at all
    tpot = device.tpot or 0.0
    try:
        needed = grant_needed(
            ready_without=ready,
            cloud_ttft=cloud_ttft,
            pace=max(split.pace.pace, tpot),
            prefill_rate=1.0 / per_token,
            device_tpot=tpot,
        )
    except InfeasibleSplitError:
        return split.max_grant
    return min(needed, split.max_grant)


def with_margin(split: SplitSettings, needed: int) -> int:
    return min(needed + math.ceil(needed * MARGIN_SHARE) + MARGIN_TOKENS, split.max_grant) if needed else 0
