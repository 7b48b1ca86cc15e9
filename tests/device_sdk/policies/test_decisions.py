"""Who answers in which situation: pure, so every case is a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk import (
    ConfigurationError,
    DelayedStart,
    Mode,
    Privacy,
    Situation,
    SplitSettings,
    StandardPolicy,
    Thermal,
)
from device_sdk.policies import Ask, Decision
from device_sdk.policies.steward import within

POLICY = StandardPolicy(delayed_start=DelayedStart(threshold=500, longest_wait=0.8))

SITUATIONS = st.builds(
    Situation,
    battery=st.one_of(st.none(), st.floats(0, 1)),
    charging=st.sampled_from([None, True, False]),
    thermal=st.one_of(st.none(), st.sampled_from(Thermal)),
    metered=st.sampled_from([None, True, False]),
    privacy=st.one_of(st.none(), st.sampled_from(Privacy)),
    deadline=st.one_of(st.none(), st.floats(0.01, 10)),
)
ASKS = st.builds(
    Ask,
    mode=st.sampled_from(Mode),
    prompt_tokens=st.integers(1, 5_000),
    has_device=st.booleans(),
    has_cloud=st.booleans(),
    device_ready=st.one_of(st.none(), st.floats(0, 10)),
    cloud_tokens_left=st.one_of(st.none(), st.integers(0, 100)),
)


def decide(
    mode: Mode = Mode.SPLIT, *, left: int | None = None, ready: float | None = None, **known: object
) -> Decision:
    ask = Ask(mode, 1_000, device_ready=ready, cloud_tokens_left=left)
    return POLICY.decide(ask, Situation(**known))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", list(Mode))
def test_where_nothing_is_known_nothing_changes(mode: Mode) -> None:
    assert decide(mode) == Decision(mode)


@pytest.mark.parametrize(
    ("known", "mode", "why"),
    [
        ({"thermal": Thermal.SERIOUS}, Mode.PREFER_IN_CLOUD, "hot (SERIOUS)"),
        ({"thermal": Thermal.FAIR}, Mode.SPLIT, ""),
        ({"battery": 0.1}, Mode.PREFER_IN_CLOUD, "battery is at 10%"),
        ({"battery": 0.1, "charging": True}, Mode.SPLIT, ""),
        ({"battery": 0.9, "charging": True}, Mode.SPLIT, ""),
        ({"privacy": Privacy.PRIVATE}, Mode.PREFER_ON_DEVICE, "private"),
        ({"privacy": Privacy.PRIVATE, "thermal": Thermal.CRITICAL}, Mode.PREFER_ON_DEVICE, "private"),
        ({"privacy": Privacy.SECRET, "thermal": Thermal.CRITICAL}, Mode.ONLY_ON_DEVICE, "secret"),
        ({"privacy": Privacy.PUBLIC}, Mode.SPLIT, ""),
    ],
)
def test_one_thing_decides(known: dict[str, object], mode: Mode, why: str) -> None:
    decision = decide(**known)
    assert decision.mode is mode
    assert why in decision.reason
    assert bool(why) == bool(decision.reason)


def test_a_metered_network_lowers_the_largest_grant() -> None:
    decision = decide(metered=True)
    assert (decision.mode, decision.max_grant) == (Mode.SPLIT, 32)
    settings = within(SplitSettings(grant=100, max_grant=200), decision)
    assert (settings.grant, settings.max_grant) == (32, 32)
    assert within(SplitSettings(max_grant=16), decision).max_grant == 16


@pytest.mark.parametrize(
    ("mode", "ready", "chosen"),
    [
        (Mode.SPLIT, 0.4, Mode.PREFER_ON_DEVICE),
        (Mode.SPLIT, 0.6, Mode.SPLIT),
        (Mode.PREFER_ON_DEVICE, 0.6, Mode.SPLIT),
        (Mode.PREFER_ON_DEVICE, 0.4, Mode.PREFER_ON_DEVICE),
        (Mode.SPLIT, None, Mode.SPLIT),
    ],
)
def test_a_deadline_asks_for_the_cloud_only_where_it_is_needed(mode: Mode, ready: float | None, chosen: Mode) -> None:
    assert decide(mode, ready=ready, deadline=0.5).mode is chosen


def test_on_battery_the_device_leaves_the_beginning_to_the_cloud() -> None:
    assert decide(battery=0.8, charging=False).device_wait == 0.8
    assert decide(battery=0.8, charging=True).device_wait == 0.0
    assert StandardPolicy().decide(Ask(Mode.SPLIT, 1_000), Situation(battery=0.8)).device_wait == 0.0


def test_a_used_up_cap_leaves_the_device() -> None:
    assert decide(left=0).mode is Mode.ONLY_ON_DEVICE
    assert decide(left=1).mode is Mode.SPLIT
    with pytest.raises(ConfigurationError, match="used up"):
        decide(Mode.ONLY_IN_CLOUD, left=0)


@given(ask=ASKS, situation=SITUATIONS)
def test_no_situation_sends_a_secret_anywhere_or_asks_for_more_than_was_allowed(ask: Ask, situation: Situation) -> None:
    try:
        decision = POLICY.decide(ask, situation)
    except ConfigurationError:
        assert situation.privacy is Privacy.SECRET or ask.cloud_tokens_left == 0
        return
    if situation.privacy is Privacy.SECRET or ask.cloud_tokens_left == 0:
        assert decision.mode is Mode.ONLY_ON_DEVICE
    if ask.mode is Mode.ONLY_ON_DEVICE:
        assert not decision.mode.uses_cloud
    if decision.mode is not ask.mode:
        assert decision.reason
    assert POLICY.decide(ask, situation) == decision


@pytest.mark.parametrize("known", [{"battery": 1.2}, {"battery": -0.1}, {"deadline": 0.0}, {"deadline": float("nan")}])
def test_what_cannot_be_is_refused(known: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(known))):
        Situation(**known)  # type: ignore[arg-type]


def test_what_is_known_of_the_question_counts_more() -> None:
    asked = Situation(privacy=Privacy.SECRET, battery=0.2)
    assert asked.over(Situation(battery=0.9, metered=True)) == Situation(
        battery=0.2, metered=True, privacy=Privacy.SECRET
    )
