"""One request to the simulated cloud, over the answer's network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from planner.simulator.cloud.job import End, Job
from planner.simulator.outcome import Outcome
from planner.wire import PROMPT_TOKEN_BYTES, REQUEST_BYTES, TOKEN_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planner.core import Request
    from planner.simulator.network import Network
    from planner.simulator.world import World


class Asked:
    """Sends the request now; `heard` is called with each token's (index, arrival at the device) where the job is
    watched, else with the first one's; `ended` once, at the time when the cloud ends it."""

    def __init__(
        self,
        world: World,
        index: int,
        request: Request,
        *,
        grant: int,
        ended: Callable[[Asked], None],
        heard: Callable[[int, float], None] | None = None,
        so_far: int = 0,
        watched: bool = False,
        network: Network | None = None,
    ) -> None:
        self.world, self.network = world, network or world.network(index)
        self.reason: End | None = None
        self._ended, self._heard = ended, heard
        self.job = Job(
            self,
            request.prompt_tokens + so_far,
            request.output_tokens - so_far,
            grant,
            request.prefix_hashes,
            watched,
        )
        size = REQUEST_BYTES + PROMPT_TOKEN_BYTES * (request.prompt_tokens + so_far)
        there = self.network.up.arrival(world.loop.now, size)
        world.loop.at(there, lambda: world.cloud.submit(self.job))

    @property
    def over(self) -> bool:
        """The cloud has ended it."""
        return self.reason is not None

    def stop(self, now: float) -> None:
        """The device wants no more of it, from `now` on; the cloud hears it later."""

        there = self.network.up.arrival(now, TOKEN_BYTES)  # after the request itself: first in, first out
        self.world.loop.at(there, lambda: self.world.cloud.stop(self.job))

    def token(self, job: Job, index: int, time: float) -> None:
        if self._heard is not None:
            self._heard(index, self.network.down.arrival(time, TOKEN_BYTES))

    def ended(self, job: Job, end: End, time: float) -> None:
        self.reason = end
        self._ended(self)

    def arrivals(self, noise: np.random.Generator) -> NDArray[np.float64]:
        """When each token of a job that has ended, and that nobody listened to, reached the device."""
        made = [self.job.first_at, *self.job.times][: self.job.delivered]
        return self.network.down.arrivals(made, TOKEN_BYTES, noise)

    def outcome(self, request: Request) -> Outcome:
        """What the cloud's side of it came to."""
        outcome = Outcome(request.arrival, request.prompt_tokens, request.output_tokens)
        self.add_to(outcome)
        return outcome

    def add_to(self, outcome: Outcome) -> None:
        job = self.job
        outcome.cloud_tokens += job.delivered
        outcome.cached_tokens += job.cached
        outcome.cloud_seconds += job.prefill_seconds + job.decode_seconds
        outcome.cloud_prefill_seconds += job.prefill_seconds
        outcome.slot_seconds += job.slot_seconds
        outcome.bytes_up, outcome.bytes_down = self.network.up.bytes, self.network.down.bytes
        outcome.rejected = float(self.reason == "rejected")
