"""The cloud prefills and sends its KV cache; the device decodes: a disaggregated datacentre, over the last mile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.errors import PlannerError
from planner.policies.asking import Asked
from planner.simulator.outcome import paced

if TYPE_CHECKING:
    from planner.core import DeviceProfile, Request
    from planner.simulator.world import World


@dataclass(frozen=True, slots=True)
class KvShipping:
    """The first token comes from the cloud at once, the KV cache behind it on the same connection. The cloud is taken
    to run the device's model, whose cache it must be. Where it rejects, the device does all alone."""

    name: str = "kv-shipping"

    def begin(self, world: World, index: int, request: Request) -> None:
        per_token = kv_bytes(world.setup.device)
        device = world.device(index, request.output_tokens)
        prompt, length = request.prompt_tokens, request.output_tokens

        def ended(asked: Asked) -> None:
            outcome, noise = asked.outcome(request), world.noise(index)
            if asked.job.given:
                first = float(asked.arrivals(noise)[0])
                ready = asked.network.down.arrival(asked.job.first_at, prompt * per_token)
            else:
                prefill = device.prefill(0, prompt)
                outcome.device_prefill_seconds = prefill
                first = ready = world.loop.now + prefill
            decoded = device.decode(prompt, length, noise)
            outcome.device_decode_seconds = float(decoded[-1])
            outcome.ttft = first - request.arrival
            there = np.concatenate(([first], ready + decoded[:-1]))
            outcome.shown(paced(there, world.setup.pace.pace), world.setup.pace)
            outcome.bytes_up, outcome.bytes_down = asked.network.up.bytes, asked.network.down.bytes
            world.record(index, request, outcome, [asked.job])

        Asked(world, index, request, grant=1, ended=ended)


def kv_bytes(device: DeviceProfile) -> int:
    """Bytes of KV cache for a token of the device's model. Raises PlannerError where the profile does not say."""
    if device.kv_bytes_per_token is None:
        raise PlannerError(
            f"the device profile {device.name!r} does not say kv_bytes_per_token, which kv-shipping needs: "
            "add it (2 × layers × KV heads × head size × bytes of a number) or leave the policy out"
        )
    return device.kv_bytes_per_token
