from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING, Any

import pytest

from speed_controller import PaceSettings, SettingError, SpeedController, SpeedControllerError, TimeWentBackError
from speed_controller.clairvoyant import smallest_largest_gap

if TYPE_CHECKING:
    from collections.abc import Callable

PACE = 0.05


def token(controller: SpeedController, now: float) -> None:
    controller.arrived(now)


def tokens(start: float, step: float, count: int) -> list[Any]:
    return [(start + i * step, token) for i in range(count)]


def forecast(ready_at: float | None, tpot: float | None) -> Callable[[SpeedController, float], None]:
    return lambda controller, now: controller.expect_device(now, ready_at, tpot)


def cloud(remaining: int, tpot: float | None) -> Callable[[SpeedController, float], None]:
    return lambda controller, now: controller.cloud_state(now, remaining=remaining, tpot=tpot, round_trip=0.05)


# --- towards the device ----------------------------------------------------------------------------------------------


def test_the_tokens_in_hand_just_reach_the_device(driver: Callable[..., Any]) -> None:
    # 20 tokens from 0.2 s on, the device at 1.6 s: 1.4 s in 20 gaps.
    events = [(0.1, forecast(1.6, 0.05)), (0.1, cloud(20, 0.01)), *tokens(0.2, 0.01, 20), *tokens(1.6, 0.05, 40)]

    shown = driver(pace=PACE).play([*events, (1.6 + 39 * 0.05, SpeedController.finished)])

    assert shown.gaps[:20] == pytest.approx([0.07] * 20, rel=0.06)
    assert max(shown.gaps) <= 1.06 * smallest_largest_gap(shown.arrivals)


def test_a_device_that_gets_later_slows_the_pace_instead_of_stalling(driver: Callable[..., Any]) -> None:
    cloud_tokens = [(0.1, forecast(1.5, 0.04)), (0.1, cloud(30, 0.01)), *tokens(0.2, 0.01, 30)]
    ended = [(0.5, cloud(0, None))]
    later = [(0.6, forecast(1.9, 0.04)), (1.0, forecast(2.1, 0.04))]
    device = [*tokens(2.1, 0.04, 30), (2.1, forecast(2.1, 0.04))]

    smooth = driver(pace=PACE).play([*cloud_tokens, *ended, *later, *device])
    fixed = driver(pace=PACE, mode="fixed").play([*cloud_tokens, *ended, *later, *device])

    assert max(fixed.gaps) > 0.4
    assert max(smooth.gaps) < 0.08


def test_a_certain_stall_is_spread_at_once_when_the_cloud_is_lost(driver: Callable[..., Any]) -> None:
    events = [
        (0.1, forecast(3.2, 0.04)),
        (0.1, cloud(60, 0.01)),
        *tokens(0.2, 0.01, 11),
        (0.31, cloud(0, None)),  # lost: 8 tokens in hand for 2.9 s
        *tokens(3.2, 0.04, 10),
        (3.56, SpeedController.finished),
    ]

    shown = driver(pace=PACE, pace_max=0.08).play(events)

    assert max(shown.gaps[:2]) < 0.06
    assert max(shown.gaps) < 1.2 * 2.9 / 9


def test_jitter_of_the_device_hardly_shows(driver: Callable[..., Any]) -> None:
    rng = random.Random(5)
    device, now = [], 1.0
    for _ in range(120):
        device.append((now, token))
        now += 0.04 * rng.uniform(0.7, 1.3)
    made = driver(pace=PACE)
    made.tell = forecast(1.0, 0.04)

    shown = made.play([(0.1, forecast(1.0, 0.04)), (0.1, cloud(20, 0.01)), *tokens(0.2, 0.01, 20), *device])

    arrived = [b - a for a, b in zip(shown.arrivals[20:], shown.arrivals[21:], strict=False)]
    assert statistics.pstdev(shown.gaps[30:]) < statistics.pstdev(arrived[10:]) / 4
    assert max(shown.gaps) <= PACE + 1e-9


def test_after_the_hand_over_the_pace_settles_at_the_devices_own(driver: Callable[..., Any]) -> None:
    made = driver(pace=PACE)
    made.tell = forecast(1.0, 0.03)  # a time gone by: the device leads

    shown = made.play(
        [(0.1, forecast(1.0, 0.03)), (0.1, cloud(20, 0.01)), *tokens(0.2, 0.01, 20), *tokens(1.0, 0.03, 80)]
    )

    assert statistics.mean(shown.gaps[50:90]) == pytest.approx(0.03, rel=0.05)


def test_the_device_may_be_reported_ready_now_again_and_again(driver: Callable[..., Any]) -> None:
    def ready_now(controller: SpeedController, now: float) -> None:
        controller.expect_device(now, now, 0.03)

    made = driver(pace=PACE)
    made.tell = lambda controller, now: ready_now(controller, now) if now >= 1.0 else None
    device = [event for i in range(80) for event in ((1.0 + i * 0.03, token), (1.0 + i * 0.03, ready_now))]

    shown = made.play([(0.1, forecast(1.0, 0.03)), (0.1, cloud(20, 0.01)), *tokens(0.2, 0.01, 20), *device])

    assert statistics.mean(shown.gaps[50:90]) == pytest.approx(0.03, rel=0.05)


def test_no_even_pace_is_faster_than_the_fastest(driver: Callable[..., Any]) -> None:
    made = driver(pace=PACE, pace_min=0.02)
    made.tell = forecast(0.5, 0.001)

    shown = made.play([(0.5, forecast(0.5, 0.001)), *tokens(0.5, 0.001, 60)])

    assert min(shown.gaps) == pytest.approx(0.02)


# --- without one side ------------------------------------------------------------------------------------------------


def test_bursts_of_the_link_do_not_show_in_cloud(driver: Callable[..., Any]) -> None:
    # 30 ms a token, delivered five at a time.
    burst = [(0.3 + 0.15 * i, lambda controller, now: controller.arrived(now, 5)) for i in range(20)]

    shown = driver(pace=PACE).play([(0.3, cloud(100, 0.03)), *burst])

    assert shown.gaps == pytest.approx([PACE] * 99, rel=1e-6)


def test_on_device_alone_builds_up_a_little_spare_time(driver: Callable[..., Any]) -> None:
    made = driver(pace=PACE)
    made.tell = forecast(1.0, 0.07)
    hiccup = [*tokens(1.0, 0.07, 40), *tokens(1.0 + 39 * 0.07 + 0.17, 0.07, 20)]

    shown = made.play([(0.0, forecast(1.0, 0.07)), *hiccup])

    assert max(shown.gaps) < 0.08  # the 170 ms step is covered


# --- the end ---------------------------------------------------------------------------------------------------------


def test_flush_shows_the_rest_at_once() -> None:
    controller = SpeedController(PaceSettings(finish="flush"), submitted=0.0)
    controller.arrived(1.0, 10)
    assert controller.due(1.0) == 1

    controller.finished(1.02)

    assert controller.next_due() == 1.02
    assert controller.due(1.02) == 9
    assert controller.next_due() is None


def test_a_finished_answer_goes_on_at_the_preferred_pace(driver: Callable[..., Any]) -> None:
    # Slow at first, as the device is far away; then the cloud has the whole answer.
    events = [
        (0.1, forecast(9.0, 0.05)),
        (0.1, cloud(40, 0.001)),
        *tokens(0.2, 0.001, 40),
        (0.5, SpeedController.finished),
    ]

    shown = driver(pace=PACE).play(events)

    assert shown.gaps[0] == pytest.approx(0.08)
    assert shown.gaps[-10:] == pytest.approx([PACE] * 10)


# --- asking for more -------------------------------------------------------------------------------------------------


def test_more_grant_is_asked_for_in_time_and_once(driver: Callable[..., Any]) -> None:
    made = driver(pace=PACE, pace_max=0.08)
    asked: list[tuple[float, int]] = []

    def ask(controller: SpeedController, now: float) -> None:
        extra = controller.extension(now)
        if extra and not asked:
            asked.append((now, extra))
            controller.cloud_state(now, remaining=9 + extra, tpot=0.01, round_trip=0.05)
            assert controller.extension(now) == 0

    made.tell = ask
    made.play([(0.1, forecast(2.0, 0.05)), (0.1, cloud(10, 0.01)), *tokens(0.2, 0.01, 10)])

    # Ten tokens at 80 ms last until 1.0 s; the device is there at 2.0 s. The grant ends long before that: what is not
    # asked for now must be begun anew.
    ((at, extra),) = asked
    assert extra == math.ceil((2.0 - (0.2 + 10 * 0.08)) / 0.08)
    assert at <= 0.2 + 10 * 0.01


@pytest.mark.parametrize(
    ("ready_at", "cloud_tpot", "why"),
    [
        (0.4, 0.01, "the tokens in hand reach"),
        (None, 0.01, "no device is expected"),
        (3.0, None, "the cloud gives nothing more"),
    ],
)
def test_no_more_grant_is_asked_for(ready_at: float | None, cloud_tpot: float | None, why: str) -> None:
    controller = SpeedController(PaceSettings(), submitted=0.0)
    controller.cloud_state(0.0, remaining=3, tpot=0.01, round_trip=0.05)
    controller.expect_device(0.0, 3.0, 0.05)
    assert controller.extension(0.0) == 0, "nothing was shown yet"

    controller.arrived(0.2, 3)
    controller.due(0.2)
    assert controller.extension(0.2) > 0
    controller.expect_device(0.2, ready_at, 0.05)
    controller.cloud_state(0.2, remaining=0, tpot=cloud_tpot, round_trip=0.05)

    assert controller.extension(0.2) == 0, why


# --- misuse, and the real world --------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [0.9, math.nan, math.inf])
def test_time_must_not_go_back(now: float) -> None:
    controller = SpeedController(PaceSettings(), submitted=1.0)

    for call in (
        lambda: controller.arrived(now),
        lambda: controller.expect_device(now, 2.0, 0.05),
        lambda: controller.cloud_state(now, remaining=1, tpot=0.05, round_trip=0.05),
        lambda: controller.finished(now),
        lambda: controller.due(now),
        lambda: controller.extension(now),
    ):
        with pytest.raises(TimeWentBackError):
            call()


def test_impossible_counts_are_refused() -> None:
    controller = SpeedController(PaceSettings(), submitted=1.0)

    with pytest.raises(SettingError, match="count"):
        controller.arrived(1.0, 0)
    with pytest.raises(SettingError, match="remaining"):
        controller.cloud_state(1.0, remaining=-1, tpot=0.05, round_trip=0.05)
    with pytest.raises(SpeedControllerError, match="submitted"):
        SpeedController(PaceSettings(), submitted=math.nan)


def test_after_a_sleep_the_tokens_do_not_come_in_a_burst() -> None:
    controller = SpeedController(PaceSettings(pace=PACE), submitted=0.0)
    controller.arrived(1.0, 50)
    controller.due(1.0)

    assert controller.due(9.0) == 1  # the laptop was closed
    assert controller.next_due() == pytest.approx(9.0 + PACE)


def test_a_coarse_timer_keeps_the_average_pace() -> None:
    controller = SpeedController(PaceSettings(pace=PACE), submitted=0.0)
    controller.arrived(0.0, 101)

    tick, now = 0.016, 0.0
    while controller.buffered:
        controller.due(now)
        now += tick

    assert now == pytest.approx(100 * PACE, abs=2 * tick)


def test_the_counters() -> None:
    controller = SpeedController(PaceSettings(pace=PACE), submitted=0.0)
    controller.arrived(1.0, 3)
    assert (controller.shown, controller.buffered) == (0, 3)

    controller.due(1.0)

    assert (controller.shown, controller.buffered, controller.pace) == (1, 2, PACE)
