from __future__ import annotations

import math

import pytest

from speed_controller import CloudForecast, DeviceForecast, SettingError
from speed_controller.estimates import LEFT_OUT


def test_nothing_is_known_at_first() -> None:
    assert DeviceForecast().ready_in(100) is None
    assert DeviceForecast().tpot is None
    cloud = CloudForecast()
    assert (cloud.ttft, cloud.tpot, cloud.round_trip) == (None, None, None)


def test_a_profile_holds_until_something_was_observed() -> None:
    device = DeviceForecast(prefill_rate=500.0, tpot=0.04)

    assert device.ready_in(1000) == pytest.approx(2.0)
    assert device.tpot == pytest.approx(0.04)


def test_the_warm_up_pass_does_not_spoil_the_forecast() -> None:
    device = DeviceForecast(prefill_rate=500.0)

    for seconds in (3.0, 0.5, 0.5):  # 250 tokens at a twelfth of the rate, then at the rate
        device.observe_prefill(250, seconds)

    assert device.ready_in(500) == pytest.approx(1.0)


def test_one_slow_pass_is_an_outlier_and_two_are_throttling() -> None:
    device = DeviceForecast(prefill_rate=500.0)
    for _ in range(4):
        device.observe_prefill(250, 0.5)

    device.observe_prefill(250, 1.0)
    assert device.ready_in(500) == pytest.approx(1.0)
    device.observe_prefill(250, 1.0)
    assert device.ready_in(500) == pytest.approx(2.0)


def test_a_small_pass_tells_nothing_of_the_rate() -> None:
    device = DeviceForecast()
    device.observe_prefill(250, 0.5)

    for _ in range(9):
        device.observe_prefill(3, 0.04)

    assert device.ready_in(500) == pytest.approx(1.0)


def test_decode_hiccups_do_not_move_the_tpot() -> None:
    device = DeviceForecast()

    for seconds in (0.04, 0.04, 0.3, 0.04, 0.04, 0.5, 0.04):
        device.observe_decode(seconds)

    assert device.tpot == pytest.approx(0.04)


def test_a_burst_does_not_look_like_a_fast_cloud() -> None:
    cloud = CloudForecast()
    cloud.observe_first_token(0.3)

    # 30 ms a token, but the link holds tokens back and delivers three together.
    for i in range(12):
        cloud.observe_arrival(1.0 + 0.09 * i, count=3)

    assert cloud.tpot == pytest.approx(0.03)
    assert cloud.ttft == 0.3


def test_a_new_answer_starts_from_what_the_last_one_showed() -> None:
    cloud = CloudForecast()
    cloud.observe_first_token(0.3)
    for i in range(5):
        cloud.observe_arrival(1.0 + 0.02 * i)

    cloud.observe_first_token(0.5)
    cloud.observe_arrival(60.0)

    assert cloud.tpot == pytest.approx(0.02)  # not the minute between the answers
    assert cloud.ttft == 0.5


def test_the_round_trip_is_a_median() -> None:
    cloud = CloudForecast(round_trip=0.04)

    for seconds in (0.05, 0.9, 0.04):
        cloud.observe_round_trip(seconds)

    assert cloud.round_trip == pytest.approx(0.045)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_impossible_observations_are_refused(value: float) -> None:
    device, cloud = DeviceForecast(), CloudForecast()
    for observe in (
        lambda: device.observe_prefill(10, value),
        lambda: device.observe_decode(value),
        lambda: cloud.observe_first_token(value),
        lambda: cloud.observe_round_trip(value),
        lambda: DeviceForecast(prefill_rate=value),
    ):
        with pytest.raises(SettingError):
            observe()
    with pytest.raises(SettingError, match="tokens"):
        device.observe_prefill(0, 1.0)
    with pytest.raises(SettingError, match="count"):
        cloud.observe_arrival(1.0, count=0)


def test_a_pass_under_way_counts_for_what_is_left_of_it() -> None:
    device = DeviceForecast(prefill_rate=500.0)

    assert device.first_token_in(500, running=250, elapsed=0.2) == pytest.approx(0.8)


def test_a_pass_that_runs_late_tells_of_a_slower_device() -> None:
    device = DeviceForecast(prefill_rate=500.0)

    # Half a second was believed, three quarters it is: as long again for the pass, half as slow again after it.
    assert device.first_token_in(500, running=250, elapsed=0.75) == pytest.approx(0.25 + 0.75)


def test_what_runs_is_part_of_what_is_left() -> None:
    with pytest.raises(SettingError, match="running"):
        DeviceForecast(prefill_rate=500.0).first_token_in(100, running=101)


def test_the_last_few_tokens_take_a_pass_of_their_own() -> None:
    device = DeviceForecast(prefill_rate=500.0, tpot=0.04)

    assert device.first_token_in(255, running=250) == pytest.approx(0.5 + 0.04)
    assert device.first_token_in(250, running=250) == pytest.approx(0.5)
    assert DeviceForecast().first_token_in(10) is None


def test_a_shorter_prompt_is_expected_sooner_by_its_share_of_the_prefill() -> None:
    cloud = CloudForecast(round_trip=0.1)
    assert cloud.ttft_of(100) is None
    cloud.observe_first_token(1.1, 4_000)
    assert cloud.ttft == 1.1
    assert cloud.ttft_of(4_000) == cloud.ttft_of(8_000) == 1.1
    assert cloud.ttft_of(1_000) == pytest.approx(0.1 + 0.25)
    cloud.observe_first_token(0.05, 1_000)  # less than the round trip was
    assert cloud.ttft_of(10) == pytest.approx(0.05)
    cloud.observe_first_token(0.7)
    assert cloud.ttft_of(10) == 0.7


def test_a_cloud_that_is_left_out_is_asked_again_in_the_end() -> None:
    cloud = CloudForecast(ttft=9.0)
    for _ in range(LEFT_OUT - 1):
        cloud.observe_left_out()
    assert cloud.ttft == 9.0
    cloud.observe_first_token(8.0, 100)
    for _ in range(LEFT_OUT - 1):
        cloud.observe_left_out()
    assert cloud.ttft_of(100) == 8.0
    cloud.observe_left_out()
    assert (cloud.ttft, cloud.ttft_of(100)) == (None, None)


def test_a_refinement_is_expected_with_the_first_token_until_one_was_seen() -> None:
    cloud = CloudForecast(ttft=0.3)
    assert (cloud.refinement_of(500), cloud.refines) == (0.3, True)
    cloud.observe_refinement(0.2, 1_000)
    cloud.observe_first_token(0.5)
    assert cloud.refinement_of(1_000) == 0.2
    assert cloud.refinement_of(500) == pytest.approx(0.1)


def test_a_refinement_is_expected_as_long_after_the_first_token_as_the_latest_one_was() -> None:
    """However long this prompt takes until then; a refinement that came before its first token says nothing of that."""
    cloud = CloudForecast()
    cloud.observe_refinement(0.35, 500, first_token=0.3)
    assert cloud.refinement_of(4_000) is None
    assert cloud.refinement_of(4_000, first_token=1.5) == pytest.approx(1.55)
    cloud.observe_first_token(1.2, 4_000)
    assert cloud.refinement_of(4_000) == pytest.approx(1.25)
    assert cloud.refinement_of(2_000) == pytest.approx(0.65)
    cloud.observe_refinement(0.8, 4_000)
    assert cloud.refinement_of(4_000, first_token=1.5) == 0.8


def test_a_cloud_that_was_asked_and_did_not_refine_is_not_waited_for_until_it_does() -> None:
    cloud = CloudForecast(ttft=0.3)
    cloud.observe_refinement(None)
    assert (cloud.refinement_of(500), cloud.refines) == (None, False)
    cloud.observe_refinement(0.2)
    assert (cloud.refinement_of(500), cloud.refines) == (0.2, True)


def test_a_refinement_is_expected_to_keep_as_much_as_the_largest_of_the_latest() -> None:
    cloud = CloudForecast()
    assert cloud.kept_of(0.5) == 0.5
    for share in (0.45, 0.1, 0.2, 0.15, 0.05):
        cloud.observe_kept(share)
    assert cloud.kept_of(0.5) == 0.2
    assert cloud.kept_of(0.1) == 0.1
    cloud.observe_kept(0.6)  # what is protected needs more than the ratio
    assert cloud.kept_of(0.5) == 0.5


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_a_refinement_keeps_something(share: float) -> None:
    with pytest.raises(SettingError, match="share is"):
        CloudForecast().observe_kept(share)
