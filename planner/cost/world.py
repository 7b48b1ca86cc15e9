"""Profiles and load, asked for times: how long this device and this cloud take for so many tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.core import CloudProfile, DeviceProfile, LinkProfile
from planner.cost.load import Load, wait, waits
from planner.cost.quality import FULL_PROMPT_ONLY, QualityTable
from planner.cost.quantity import Quantity
from planner.wire import LEAST_TIMEOUT, PROMPT_TOKEN_BYTES, REQUEST_BYTES, TOKEN_BYTES

#: Tokens in hand that even out the device's decode steps: the controller's spare time.
SPARE_TOKENS = 3


IDLE = Load()


def request_bytes(prompt: int) -> int:
    """What a request with so many prompt tokens weighs on the wire."""
    return REQUEST_BYTES + prompt * PROMPT_TOKEN_BYTES


@dataclass(slots=True)
class World:
    """One kind of device, cloud and link under one load. Times in seconds."""

    device: DeviceProfile
    cloud: CloudProfile
    link: LinkProfile
    load: Load = IDLE
    quality: QualityTable = FULL_PROMPT_ONLY
    #: Mean absolute relative error found by `pd-plan validate`: metric → share. Widens quantiles.
    error: Mapping[str, float] = field(default_factory=dict)
    #: Chunk → seconds until so many whole chunks are read; prompt → seconds; context → pass of one and of two.
    _device: dict[int, list[float]] = field(default_factory=dict)
    _cloud: dict[int, float] = field(default_factory=dict)
    _pass: dict[int, tuple[float, float]] = field(default_factory=dict)
    #: (tokens, chunk) → T_d; context → t_d.
    _prefill: dict[tuple[int, int], Quantity] = field(default_factory=dict)
    _token: dict[int, float] = field(default_factory=dict)
    #: Prompt → T1 under this load.
    _first: dict[int, Quantity] = field(default_factory=dict)

    def under(self, load: Load) -> World:
        """The same under another load; what was computed of the hardware is kept."""
        known = self._device, self._cloud, self._pass, self._prefill, self._token
        return World(self.device, self.cloud, self.link, load, self.quality, self.error, *known)

    def widened(self, metric: str, value: float) -> float:
        return value * (1 + self.error.get(metric, 0.0))

    # --- the device ----------------------------------------------------------------------------------------------

    def device_prefill(self, tokens: int, chunk: int) -> Quantity:
        """T_d: passes over chunks of `chunk` tokens until `tokens` are in the KV cache."""
        found = self._prefill.get((tokens, chunk))
        if found is None:
            seconds, passes = self._passes(tokens, chunk)
            deviation = math.hypot(self.device.spread, self.device.jitter / math.sqrt(max(1, passes)))
            found = self._prefill[tokens, chunk] = Quantity.relative(seconds, deviation)
        return found

    def device_token(self, context: int) -> float:
        """t_d: one decode step."""
        found = self._token.get(context)
        if found is None:
            found = self._token[context] = self.device.pass_ms([(context, 1)]) / 1000
        return found

    def device_gap(self, context: int, share: float) -> float:
        """A quantile of the device's time per token, evened out by the tokens in hand."""
        deviation = math.hypot(self.device.spread, self.device.jitter / math.sqrt(SPARE_TOKENS))
        return Quantity.relative(self.device_token(context), deviation).quantile(share)

    def _passes(self, tokens: int, chunk: int) -> tuple[float, int]:
        read = self._device.setdefault(chunk, [0.0])
        whole, rest = divmod(tokens, chunk)
        while len(read) <= whole:
            context = (len(read) - 1) * chunk
            read.append(read[-1] + self.device.pass_ms([(context, chunk)]) / 1000)
        last = self.device.pass_ms([(whole * chunk, rest)]) / 1000 if rest else 0.0
        return read[whole] + last, whole + (rest > 0)

    # --- the cloud -----------------------------------------------------------------------------------------------

    def cloud_prefill(self, tokens: int) -> float:
        """T_c: engine seconds of a prompt alone, in passes of the service's budget."""
        found = self._cloud.get(tokens)
        if found is None:
            size, profile = self.cloud.pass_tokens, self.cloud.hardware
            chunks = ([(at, min(size, tokens - at))] for at in range(0, tokens, size))
            found = self._cloud[tokens] = sum(map(profile.pass_ms, chunks)) / 1000
        return found

    def cloud_pass(self, context: int, batch: float) -> float:
        """t_p: a pass in which `batch` sequences decode one token each; between whole batches linear."""
        if context not in self._pass:
            one, two = (self.cloud.hardware.pass_ms([(context, 1)] * count) / 1000 for count in (1, 2))
            self._pass[context] = one, two - one
        alone, more = self._pass[context]
        return alone + (max(1.0, batch) - 1) * more

    def cloud_token(self, context: int) -> float:
        """t_c: from one token to the next, between the prefill passes of others."""
        seconds = self.cloud_pass(context, self.load.batch)
        return seconds if self.cloud.prefill_instances else seconds / (1 - self.load.prefill)

    def cloud_token_cost(self, context: int) -> float:
        """Engine seconds of a decoded token: its share of the pass."""
        return self.cloud_pass(context, self.load.batch) / max(1.0, self.load.batch)

    def cloud_first_token(self, tokens: int) -> Quantity:
        """T1, from the device's side: up, wait for a place, prefill among others, down."""
        if tokens not in self._first:
            self._first[tokens] = self._first_token(tokens)
        return self._first[tokens]

    def _first_token(self, tokens: int) -> Quantity:
        own = self.cloud_prefill(tokens)
        cloud = self.cloud
        deviation = math.hypot(cloud.hardware.spread, cloud.hardware.jitter)
        prefill = Quantity.relative(own, deviation)
        sharing = wait(cloud.prefill_instances or cloud.instances, self.load.prefill, own)
        return self.up(request_bytes(tokens)) + self._place() + prefill + sharing + self.down()

    def _place(self) -> Quantity:
        """Waiting for one of the places (instances × sequences)."""
        places = (self.cloud.instances - self.cloud.prefill_instances) * self.cloud.max_sequences
        if waits(places, self.load.places) < 1e-6:
            return Quantity.fixed(0.0)
        return wait(places, self.load.places, self.load.hold)

    # --- the link ------------------------------------------------------------------------------------------------

    def up(self, size: int) -> Quantity:
        """From the device, `size` bytes."""
        return self._way(size, self.link.up_kbps)

    def down(self, size: int = TOKEN_BYTES) -> Quantity:
        """To the device, `size` bytes."""
        return self._way(size, self.link.down_kbps)

    def _way(self, size: int, kbps: float | None) -> Quantity:
        link = self.link
        sending = 0.0 if kbps is None else size * 8 / (kbps * 1000)
        once = Quantity.fixed(link.rtt_ms / 2000 + sending) + Quantity.exponential(link.jitter_ms / 1000)
        again = LEAST_TIMEOUT + link.rtt_ms / 1000
        return once + Quantity.sometimes(link.loss, again, varies=False)
