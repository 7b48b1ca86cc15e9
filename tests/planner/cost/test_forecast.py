from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.profiles import HardwareProfile, LinkProfile, load_link, load_profile
from planner.core import CloudProfile, Route
from planner.cost import Decision, Load, QualityTable, Quantity, World, forecast
from planner.cost.forecast import ready
from planner.cost.load import steady, wait, waits
from planner.errors import PlannerError
from speed_controller.clairvoyant import smallest_largest_gap


def certain(profile: HardwareProfile) -> HardwareProfile:
    return msgspec.structs.replace(profile, jitter=0.0, spread=0.0)


def world(device: str = "phone-snapdragon-8-elite", load: Load | None = None) -> World:
    """Without any chance in it."""
    cloud = CloudProfile(certain(load_profile("datacentre-a100-pcie")), max_sequences=32)
    link = LinkProfile("still", 50.0, 0.0, 10_000.0, 50_000.0)
    return World(certain(load_profile(device)), cloud, link, load or Load())


@given(prompt=st.integers(600, 6000), grant=st.integers(1, 80), pace=st.floats(0.043, 0.2))
def test_the_largest_gap_is_the_optimum_in_hindsight(prompt: int, grant: int, pace: float) -> None:
    """With nothing left to chance, the forecast is what the clairvoyant schedule of the same arrivals has."""
    here, decision = world(), Decision(Route.SPLIT, grant, pace=pace, chunk=128)
    first = here.cloud_first_token(prompt)
    token = here.cloud_token(prompt)
    arrivals = [first.mean + at * token for at in range(grant)]
    own = max(arrivals[-1], ready(here, decision, prompt, first).mean)
    step = here.device_token(prompt + 300)
    arrivals += [own + at * step for at in range(300 - grant)]
    expected = smallest_largest_gap(arrivals, pace)
    assert forecast(here, decision, prompt, 300).max_gap_p99 == pytest.approx(expected, rel=1e-3)


def test_ttft_of_each_route() -> None:
    here = world()
    prompt = 2048
    sent = (400 + 4 * prompt) * 8 / 10_000_000 + 110 * 8 / 50_000_000
    in_cloud = forecast(here, Decision(Route.CLOUD), prompt, 100).ttft_mean
    profile = here.cloud.hardware
    assert in_cloud == pytest.approx(0.050 + sent + profile.prompt_ms(prompt) / 1000, rel=1e-6)
    on_device = forecast(here, Decision(Route.DEVICE, chunk=256), prompt, 100).ttft_mean
    assert on_device == pytest.approx(2048 / 1451.3, rel=1e-6)
    split = forecast(here, Decision(Route.SPLIT, 20, chunk=256), prompt, 100)
    assert split.ttft_mean == in_cloud
    assert forecast(here, Decision(Route.SPLIT, 20, chunk=256), 64, 100).ttft_mean < 0.1  # the device is there first


def test_the_cloud_pays_for_the_grant_only() -> None:
    here = world()
    long = forecast(here, Decision(Route.CLOUD), 1000, 400)
    split = forecast(here, Decision(Route.SPLIT, 20), 1000, 400)
    short = forecast(here, Decision(Route.SPLIT, 20), 1000, 10)
    assert (long.cloud_tokens, split.cloud_tokens, short.cloud_tokens) == (400, 20, 10)
    assert long.cloud_seconds - here.cloud_prefill(1000) == pytest.approx(
        (split.cloud_seconds - here.cloud_prefill(1000)) * 399 / 19, rel=0.02
    )
    assert short.device_seconds < split.device_seconds
    assert forecast(here, Decision(Route.DEVICE), 1000, 400).cloud_seconds == 0


def test_refinement_is_ready_earlier_and_costs_quality() -> None:
    here = replace(world(), quality=QualityTable(source="test", points=((0.25, 0.9), (0.75, 1.0))))
    first = here.cloud_first_token(4000)
    times = [
        ready(here, Decision(Route.SPLIT, 10, ratio, chunk=128), 4000, first).mean for ratio in (None, 0.75, 0.5, 0.25)
    ]
    assert times == sorted(times, reverse=True)
    # What is read before the refinement comes is read in whole chunks; of the rest a quarter.
    rate = 1451.3
    before = -(-first.mean * rate // 128) * 128
    assert times[-1] == pytest.approx((before + 0.25 * (4000 - before) + 10) / rate, abs=128 / rate)
    assert forecast(here, Decision(Route.SPLIT, 10, 0.5), 4000, 50).quality == pytest.approx(0.95)
    assert here.quality.quality(0.1) == 0
    assert here.quality.quality(None) == 1


def test_energy_needs_both_draws() -> None:
    here = world()
    assert forecast(here, Decision(Route.DEVICE), 1000, 10).energy is None
    device = msgspec.structs.replace(here.device, prefill_watts=6.0, decode_watts=3.0)
    seen = forecast(replace(here, device=device), Decision(Route.DEVICE, chunk=128), 1280, 11)
    assert seen.energy == pytest.approx(6.0 * 1280 / 1451.3 + 3.0 * 10 * 0.042604, rel=1e-4)


@given(mean=st.floats(0.01, 2), deviation=st.floats(0.01, 0.4), extra=st.floats(0, 0.5), seed=st.integers(0, 5))
def test_quantiles_of_a_sum_are_near_those_of_draws(mean: float, deviation: float, extra: float, seed: int) -> None:
    rng = random.Random(seed)
    delay = 0.1 * mean
    total = Quantity.fixed(extra) + Quantity.relative(mean, deviation) + Quantity.exponential(delay)
    sigma = math.sqrt(math.log1p(deviation**2))
    draws = sorted(
        extra + mean * rng.lognormvariate(-(sigma**2) / 2, sigma) + rng.expovariate(1 / delay) for _ in range(4000)
    )
    assert total.mean == pytest.approx(statistics.mean(draws), rel=0.05)
    for share in (0.5, 0.95, 0.99):
        assert total.quantile(share) == pytest.approx(draws[int(share * len(draws))], rel=0.05)


def test_a_quantity_without_spread_is_itself() -> None:
    assert Quantity.fixed(0.3).quantile(0.99) == 0.3
    assert (Quantity.fixed(0.3) + Quantity.relative(1.0, 0.0)).quantile(0.99) == pytest.approx(1.3)


def test_waiting_follows_erlang_and_processor_sharing() -> None:
    assert waits(2, 0.5) == pytest.approx(1 / 3)
    assert waits(1, 0.7) == pytest.approx(0.7)
    assert wait(1, 0.75, 2.0).mean == pytest.approx(2.0 * 0.75 / 0.25)
    assert wait(4, 0.0, 2.0) == Quantity.fixed(0.0)
    assert wait(8, 0.5, 1.0).mean < wait(1, 0.5, 1.0).mean


@given(rate=st.floats(0.01, 20), prefill=st.floats(0.01, 0.5), tokens=st.floats(1, 400), shared=st.booleans())
def test_a_steady_load_obeys_littles_law(rate: float, prefill: float, tokens: float, shared: bool) -> None:
    found = steady(
        rate=rate, prefill_seconds=prefill, decode_tokens=tokens, prefillers=2, decoders=2, sequences=32,
        shared=shared, token_seconds=0.018, more_seconds=0.0006,
    )  # fmt: skip
    if found is None:
        return
    assert found.prefill == pytest.approx(rate * prefill / 2)
    token = 0.018 + max(0.0, found.batch - 1) * 0.0006
    if shared:
        token /= 1 - found.prefill
    assert found.batch == pytest.approx(rate * tokens * token / 2, rel=1e-6)


def test_a_load_that_is_too_much_has_no_steady_state() -> None:
    one = {"prefill_seconds": 0.2, "decode_tokens": 100.0, "prefillers": 1, "decoders": 1, "sequences": 4}
    assert steady(rate=6, shared=True, token_seconds=0.02, more_seconds=0.001, **one) is None  # type: ignore[arg-type]
    assert steady(rate=4, shared=False, token_seconds=0.02, more_seconds=0.02, **one) is None  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Load\.prefill is 1"):
        Load(prefill=1.0)


def test_a_busy_cloud_answers_later() -> None:
    calm, busy = world(), world(load=Load(prefill=0.7, batch=12.0))
    decision = Decision(Route.CLOUD)
    assert forecast(busy, decision, 1000, 100).ttft_p95 > 2 * forecast(calm, decision, 1000, 100).ttft_p95
    assert busy.cloud_token(1000) > 3 * calm.cloud_token(1000)
    assert busy.cloud_token_cost(1000) < 0.3 * calm.cloud_token_cost(1000)  # a pass reads the weights once for all


def test_a_lossy_link_waits_for_retransmissions() -> None:
    here = world()
    link = msgspec.structs.replace(load_link("loopback"), rtt_ms=50.0, loss=0.02)
    lossy = replace(here, link=link)
    assert lossy.down().mean == pytest.approx(0.025 + 0.02 * 0.25)
    assert lossy.down().quantile(0.99) > 0.04


def test_a_bad_quality_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    with pytest.raises(PlannerError, match="cannot read the quality table"):
        QualityTable.load(path)
    path.write_text('{"source": "x", "points": [[0.5, 1], [0.4, 1]]}')
    with pytest.raises(PlannerError, match="rising keep ratios"):
        QualityTable.load(path)
