"""A plan's settings at the speeds that were measured since. Pure.

A plan's grant is the least that keeps its limit at the speeds of its profiles. What is slower now (a hot device, a
crowded link, a busy cloud) needs more; what is faster says `stop` earlier and needs nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from speed_controller.errors import InfeasibleSplitError
from speed_controller.split import SplitSettings, grant_needed, refined_length

if TYPE_CHECKING:
    from speed_controller.estimates import CloudForecast, DeviceForecast


def around_plan(
    planned: SplitSettings, unread: int, prompt: int, device: DeviceForecast, cloud: CloudForecast
) -> SplitSettings:
    """`planned` with its grant raised to what bridges `unread` of `prompt` tokens at the slowest even pace, where that
    is more, and at most to its `max_grant`: the device has read the others, the cloud has not. Unchanged where the
    grant is not the plan's or the device's rate is not known."""
    per_token = device.ready_in(1)
    if planned.grant is None or not per_token or not unread:
        return planned
    rate, ttft, tpot = 1.0 / per_token, cloud.ttft_of(prompt) or 0.0, device.tpot or 0.0
    tokens = unread
    ratio = planned.keep_ratio_for(prompt)
    arrival = cloud.refinement_of(prompt)
    if ratio is not None and arrival is not None:
        tokens = refined_length(unread, keep_ratio=cloud.kept_of(ratio), arrival=arrival, prefill_rate=rate)
    try:
        needed = grant_needed(
            ready_without=tokens * per_token,
            cloud_ttft=ttft,
            pace=planned.pace.pace_max,
            prefill_rate=rate,
            device_tpot=min(tpot, planned.pace.pace_max),  # slower than that, no grant but the whole answer helps
        )
    except InfeasibleSplitError:  # the device never catches up
        needed = planned.max_grant
    return replace(planned, grant=max(planned.grant, min(needed, planned.max_grant)))
