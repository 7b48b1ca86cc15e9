"""How much to ask of the cloud at first."""

from __future__ import annotations

import math

from speed_controller.errors import InfeasibleSplitError
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings, grant_needed

#: Asked for while nothing is known of the device's speed; an extension follows if it is too little.
UNKNOWN_DEVICE_GRANT = 32

#: On top of what the closed form says, for jitter of the device and of the link: a share, and a few tokens.
MARGIN_SHARE, MARGIN_TOKENS = 0.1, 2


def initial_grant(split: SplitSettings, tokens: int, device: DeviceForecast, cloud: CloudForecast) -> int:
    """The grant as set, or what `grant_needed` says for the speeds known, with a margin; 0 where the device is
    there before the cloud. `tokens`: what the device has to prefill, received tokens left aside."""
    if split.grant is not None:
        return split.grant
    ready = device.ready_in(tokens)
    if ready is None:
        return min(UNKNOWN_DEVICE_GRANT, split.max_grant)
    tpot = device.tpot or 0.0
    try:
        needed = grant_needed(
            ready_without=ready,
            cloud_ttft=cloud.ttft or 0.0,
            pace=max(split.pace.pace, tpot),
            prefill_rate=tokens / ready,
            device_tpot=tpot,
        )
    except InfeasibleSplitError:
        return split.max_grant
    if needed == 0:
        return 0
    return min(needed + math.ceil(needed * MARGIN_SHARE) + MARGIN_TOKENS, split.max_grant)
