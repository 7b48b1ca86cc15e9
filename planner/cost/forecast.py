"""One request under one decision: what it costs and how it feels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_sdk.generation.chunks import chunk_at
from planner.core import Route
from planner.cost.quantity import Quantity, normal_quantile
from planner.cost.world import World, request_bytes
from planner.wire import TOKEN_BYTES
from speed_controller.settings import PaceSettings
from speed_controller.split import refined_length

#: What a plan leaves as the SDK has it.
PACE = PaceSettings()

TTFT_SHARE, GAP_SHARE = 0.95, 0.99


@dataclass(frozen=True, slots=True)
class Decision:
    """What a bucket decides. `pace` in seconds per token."""

    route: Route
    grant: int = 0
    keep_ratio: float | None = None
    pace: float = 0.050
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """Times in seconds. `energy` in joules; None where the device's draw is not known."""

    ttft_mean: float
    ttft_p95: float
    #: (Last shown - first shown) / (tokens - 1); 0 for a single token.
    tpot_mean: float
    max_gap_p99: float
    #: Engine seconds of the cloud; tokens it decodes.
    cloud_seconds: float
    cloud_tokens: float
    #: Seconds that one of the cloud's places is taken.
    place_seconds: float
    device_seconds: float
    energy: float | None
    quality: float
    bytes_up: int
    bytes_down: float


def usual_chunk(world: World) -> int:
    """What the device takes at once where nothing is decided."""
    block = world.device.prefill_block
    rate = (
        block / world.device.pass_ms([(0, block)]) * 1000
        if block > 1
        else 512 / world.device.pass_ms([(0, 512)]) * 1000
    )
    wanted = chunk_at(rate)
    return max(block, wanted - wanted % block)


def ready(
    world: World, decision: Decision, prompt: int, first_token: Quantity, *, received: int | None = None
) -> Quantity:
    """ready(k): when the device has read the prompt, as far as it must, and k tokens that it `received`; None: all of
    the grant."""
    chunk = decision.chunk or usual_chunk(world)
    whole = world.device_prefill(prompt, chunk)
    if decision.route is not Route.SPLIT:
        return whole
    kept = prompt
    if decision.keep_ratio is not None and decision.keep_ratio < 1:
        rate = prompt / whole.mean
        # The pass under way when the refinement comes is finished first.
        arrival = math.ceil(first_token.mean * rate / chunk) * chunk / rate
        kept = refined_length(prompt, keep_ratio=decision.keep_ratio, arrival=arrival, prefill_rate=rate)
    return world.device_prefill(kept + (decision.grant if received is None else received), chunk)


def forecast(world: World, decision: Decision, prompt: int, output: int) -> Forecast:
    """`prompt` and `output` in tokens."""
    match decision.route:
        case Route.DEVICE:
            return _on_device(world, decision, prompt, output)
        case Route.CLOUD:
            return _in_cloud(world, decision, prompt, output)
        case Route.SPLIT:
            return _split(world, decision, prompt, output)


def _on_device(world: World, decision: Decision, prompt: int, output: int) -> Forecast:
    first = ready(world, decision, prompt, Quantity.fixed(0.0))
    token = world.device_token(prompt + output // 2)
    # Alone, the device is shown at its own speed, be it faster than the pace.
    gap = world.device_gap(prompt + output, GAP_SHARE) if output > 1 else 0.0
    return Forecast(
        ttft_mean=first.mean,
        ttft_p95=world.widened("ttft_ms", first.quantile(TTFT_SHARE)),
        tpot_mean=token if output > 1 else 0.0,
        max_gap_p99=world.widened("max_gap_ms", gap),
        cloud_seconds=0.0,
        cloud_tokens=0.0,
        place_seconds=0.0,
        device_seconds=first.mean + (output - 1) * token,
        energy=_energy(world, first.mean, (output - 1) * token),
        quality=1.0,
        bytes_up=0,
        bytes_down=0.0,
    )


def _in_cloud(world: World, decision: Decision, prompt: int, output: int) -> Forecast:
    first = world.cloud_first_token(prompt)
    context = prompt + output // 2
    gap = max(decision.pace, _cloud_gap(world, context)) if output > 1 else 0.0
    return Forecast(
        ttft_mean=first.mean,
        ttft_p95=world.widened("ttft_ms", first.quantile(TTFT_SHARE)),
        tpot_mean=max(decision.pace, world.cloud_token(context)) if output > 1 else 0.0,
        max_gap_p99=world.widened("max_gap_ms", gap),
        cloud_seconds=world.cloud_prefill(prompt) + (output - 1) * world.cloud_token_cost(context),
        cloud_tokens=output,
        place_seconds=_place_seconds(world, prompt, output, context),
        device_seconds=0.0,
        energy=_energy(world, 0.0, 0.0),
        quality=1.0,
        bytes_up=request_bytes(prompt),
        bytes_down=output * TOKEN_BYTES,
    )


def _split(world: World, decision: Decision, prompt: int, output: int) -> Forecast:
    first = world.cloud_first_token(prompt)
    own = ready(world, decision, prompt, first)
    # Where the cloud is later than the device, nothing was received before the first token.
    alone = ready(world, decision, prompt, first, received=0)
    # A device that is there first says `stop` at once: the cloud ends in the middle of its prefill and gives nothing.
    device_first = alone.mean <= first.mean
    given = 0 if device_first else min(decision.grant, output)
    prefill = min(world.cloud_prefill(prompt), alone.mean) if device_first else world.cloud_prefill(prompt)
    context = prompt + given // 2
    left = output - given
    token = world.device_token(prompt + given + left // 2)
    # An answer that ends within the grant ends the device's prefill, too.
    reading = own.mean if left else min(own.mean, first.mean + given * world.cloud_token(context))
    gap = hand_over_gap(world, decision, first, own, prompt, output) if output > 1 else 0.0
    return Forecast(
        ttft_mean=min(first.mean, alone.mean),
        ttft_p95=world.widened("ttft_ms", min(first.quantile(TTFT_SHARE), alone.quantile(TTFT_SHARE))),
        tpot_mean=_split_tpot(decision.pace, given, own.mean - first.mean, world.cloud_token(context), token, output),
        max_gap_p99=world.widened("max_gap_ms", gap),
        cloud_seconds=prefill + max(0, given - 1) * world.cloud_token_cost(context),
        cloud_tokens=given,
        place_seconds=_place_seconds(world, prompt, given, context),
        device_seconds=reading + left * token,
        energy=_energy(world, reading, left * token),
        quality=world.quality.quality(decision.keep_ratio),
        bytes_up=request_bytes(prompt),
        bytes_down=given * TOKEN_BYTES,
    )


def _split_tpot(pace: float, given: int, late: float, cloud: float, device: float, output: int) -> float:
    """What the cloud gives at the even pace that reaches the device, which comes `late` after it; the rest at the
    device's own speed, which the pace comes near by `max_change` with each token. Where the cloud gives nothing, that
    is the pace from the beginning."""
    if output < 2:
        return 0.0
    fastest = max(device, min(PACE.pace_min, pace))
    if not given:
        return fastest
    before = min(given, output - 1)
    even = max(pace, cloud, 0.0 if output <= given else late / given)
    return (before * even + _settling(even, fastest, output - 1 - before)) / (output - 1)


def _settling(pace: float, fastest: float, tokens: int) -> float:
    """Seconds of `tokens` tokens whose gaps shrink from `pace` by `PACE.max_change` each, down to `fastest`."""
    if pace <= fastest:
        return tokens * fastest
    kept = 1 - PACE.max_change
    steps = min(tokens, math.ceil(math.log(fastest / pace) / math.log(kept)))
    return pace * kept * (1 - kept**steps) / (1 - kept) + (tokens - steps) * fastest


def hand_over_gap(
    world: World, decision: Decision, first: Quantity, own: Quantity, prompt: int, output: int, share: float = GAP_SHARE
) -> float:
    """The largest gap of a split answer: the pace, either side's own, or the even pace that just reaches the device,
    (ready(k) - T1) / k, which is the optimum in hindsight (`speed_controller.clairvoyant`)."""
    floor = max(decision.pace, _cloud_gap(world, prompt))
    if output <= decision.grant:
        return floor
    floor = max(floor, world.device_gap(prompt + output, share))
    # Both vary; their difference has no sign, so a normal stands for it.
    late = own.mean - first.mean + normal_quantile(share) * math.sqrt(own.variance + first.variance)
    return max(floor, late / max(1, decision.grant))


def _cloud_gap(world: World, context: int) -> float:
    """Of the cloud's tokens as they arrive: nothing is in hand yet when the second one comes."""
    arrival = Quantity.fixed(world.cloud_token(context)) + Quantity.exponential(world.link.jitter_ms / 1000)
    return arrival.quantile(GAP_SHARE)


def _place_seconds(world: World, prompt: int, tokens: int, context: int) -> float:
    prefill = 0.0 if world.cloud.prefill_instances else world.cloud_prefill(prompt) / (1 - world.load.prefill)
    return prefill + tokens * world.cloud_token(context)


def _energy(world: World, prefill: float, decode: float) -> float | None:
    draws = world.device.prefill_watts, world.device.decode_watts
    if draws[0] is None or draws[1] is None:
        return None
    return prefill * draws[0] + decode * draws[1]
