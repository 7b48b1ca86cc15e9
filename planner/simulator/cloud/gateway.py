"""The gateway before the instances: admission, the choice of an instance, and the way from prefill to decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from planner.simulator.cloud.accelerator import Accelerator
from planner.simulator.cloud.instance import Instance
from planner.simulator.cloud.prefix_cache import PrefixCache
from planner.simulator.pass_times import PassTimes

if TYPE_CHECKING:
    from device_sdk.testing.virtual_time import EventLoop
    from planner.core import CloudProfile
    from planner.simulator.cloud.job import Job

#: Between instances, in bytes per second: 200 Gbit/s, as P/D-Serve and its like are wired.
INTERCONNECT = 25e9


class Cloud:
    """What `CloudProfile` describes, in virtual time. Instances have queues of their own, bounded; a generation that no
    instance has room for is rejected at once, and so is one whose turn comes after the first-token deadline."""

    def __init__(self, profile: CloudProfile, loop: EventLoop, *, seed: int, block_tokens: int = 512) -> None:
        self.profile, self.loop = profile, loop
        self._most = profile.max_sequences + profile.queue_depth
        decoders = profile.instances - profile.prefill_instances
        times = PassTimes(profile.hardware)
        self._kv_seconds = (profile.hardware.kv_bytes_per_token or 0) / INTERCONNECT

        def instance(number: int, role: Literal["mixed", "prefill", "decode"]) -> Instance:
            cached = profile.prefix_cache_tokens if role != "decode" else 0
            return Instance(
                loop,
                Accelerator(times, np.random.default_rng([seed, number])),
                places=profile.max_sequences,
                pass_tokens=profile.pass_tokens,
                role=role,
                prefixes=PrefixCache(cached, block_tokens) if cached >= block_tokens else None,
                deadline=profile.first_token_deadline,
                hand_on=self._transfer,
            )

        split = profile.prefill_instances > 0
        self._prefilling = [instance(n, "prefill") for n in range(profile.prefill_instances)]
        self._decoding = [instance(100_000 + n, "decode" if split else "mixed") for n in range(decoders)]
        self.rejected = 0

    @property
    def instances(self) -> Sequence[Instance]:
        return [*self._prefilling, *self._decoding]

    def submit(self, job: Job) -> None:
        """Raises nothing: a rejection is an end that the listener hears, as the first and last thing."""
        job.arrived = self.loop.now
        entry = self._prefilling or self._decoding
        room = [each for each in entry if each.held < self._most]
        if self._prefilling and all(each.held >= self._most for each in self._decoding):
            room = []  # what is prefilled now could go nowhere
        if not room:
            self.rejected += 1
            job.over = True
            job.listener.ended(job, "rejected", self.loop.now)
            return
        min(room, key=lambda each: self._load(each, job)).take(job)

    def extend(self, job: Job, grant: int) -> None:
        if job.instance is not None:
            job.instance.extend(job, grant)
        elif not job.over:
            job.grant = max(job.grant, grant)

    def stop(self, job: Job) -> None:
        if job.instance is not None:
            job.instance.stop(job)
        elif not job.over:
            job.leaving = True  # on its way between two instances

    def _load(self, instance: Instance, job: Job) -> float:
        """Generations there, less what a cached prefix spares, in passes."""
        cached = instance.prefixes.match(job.prefix_hashes, job.prompt) if instance.prefixes else 0
        return instance.held - cached / self.profile.pass_tokens

    def _transfer(self, job: Job) -> None:
        """Prefilled: its KV cache goes to the decoding instance with the fewest generations."""
        target = min(self._decoding, key=lambda each: each.held)

        def arrive() -> None:
            if job.leaving:
                job.over = True
                job.listener.ended(job, "stopped", self.loop.now)
            else:
                target.take(job)

        self.loop.at(self.loop.now + job.prompt * self._kv_seconds, arrive)
