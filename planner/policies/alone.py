"""One side alone: on the device, or in the cloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.policies.asking import Asked
from planner.simulator.outcome import Outcome, paced

if TYPE_CHECKING:
    from planner.core import Request
    from planner.simulator.world import World


@dataclass(frozen=True, slots=True)
class OnDevice:
    """The device reads the prompt and makes the answer. Every user has one, so nobody waits for anybody."""

    name: str = "on-device"

    def begin(self, world: World, index: int, request: Request) -> None:
        device = world.device(index, request.output_tokens)
        prompt, length = request.prompt_tokens, request.output_tokens
        prefill = device.prefill(0, prompt)
        # The last pass of the prompt gives the first token.
        decoded = device.decode(prompt, length, world.noise(index))
        outcome = Outcome(request.arrival, prompt, length, ttft=prefill)
        outcome.device_prefill_seconds, outcome.device_decode_seconds = prefill, float(decoded[-1])
        outcome.shown(paced(prefill + np.concatenate(([0.0], decoded[:-1])), world.setup.pace.pace), world.setup.pace)
        world.record(index, request, outcome)


@dataclass(frozen=True, slots=True)
class InCloud:
    """The cloud makes the whole answer."""

    name: str = "in-cloud"

    def begin(self, world: World, index: int, request: Request) -> None:
        def ended(asked: Asked) -> None:
            outcome = asked.outcome(request)
            outcome.failed = outcome.rejected
            if asked.job.given:
                there = asked.arrivals(world.noise(index))
                outcome.ttft = float(there[0]) - request.arrival
                outcome.shown(paced(there, world.setup.pace.pace), world.setup.pace)
                outcome.bytes_down = asked.network.down.bytes
            world.record(index, request, outcome, [asked.job])

        Asked(world, index, request, grant=request.output_tokens + 1, ended=ended)
