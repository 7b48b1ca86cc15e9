"""The lane of an emulated link against its profile: never early, in order, no faster than its bandwidth."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.testing import LINKS, LOOPBACK, LinkProfile
from device_sdk.testing.link_profiles import Lane

gaps_and_sizes = st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 200_000)), min_size=1, max_size=40)


@given(
    messages=gaps_and_sizes,
    one_way=st.floats(0, 0.2),
    jitter=st.floats(0, 0.05),
    kbps=st.none() | st.floats(50, 1_000_000),
)
def test_bytes_arrive_in_order_never_early_and_no_faster_than_the_bandwidth(
    messages: list[tuple[float, int]], one_way: float, jitter: float, kbps: float | None
) -> None:
    lane = Lane(one_way=one_way, jitter=jitter, kbps=kbps, rng=random.Random(5))
    now, previous = 100.0, 0.0
    for gap, size in messages:
        now += gap
        arrival = lane.arrival(now, size, lane.draw_jitter())
        wire = 0.0 if kbps is None else size * 8 / (kbps * 1000)
        assert arrival >= now + wire + one_way - 1e-9
        assert arrival >= previous
        previous = arrival


@given(data=st.binary(max_size=100_000), kbps=st.none() | st.floats(50, 1_000_000))
def test_cutting_changes_no_byte(data: bytes, kbps: float | None) -> None:
    lane = Lane(one_way=0, jitter=0, kbps=kbps, rng=random.Random(0))
    assert b"".join(lane.pieces(data)) == data


def test_a_steady_sender_gets_the_bandwidth_of_the_profile() -> None:
    lane = Lane(one_way=0.02, jitter=0, kbps=8_000, rng=random.Random(0))  # one byte in a microsecond
    last = 0.0
    for piece in lane.pieces(bytes(1_000_000)):
        last = lane.arrival(0.0, len(piece), 0.0)
    assert last == pytest.approx(1.02, abs=1e-6)


def test_extra_delay_holds_for_what_enters_while_it_lasts_and_order_stays() -> None:
    lane = Lane(one_way=0.01, jitter=0, kbps=None, rng=random.Random(0))
    lane.extra = 1.0
    assert lane.arrival(0.0, 10, 0.0) == pytest.approx(1.01)
    lane.extra = 0.0
    assert lane.arrival(0.5, 10, 0.0) == pytest.approx(1.01)
    assert lane.arrival(2.0, 10, 0.0) == pytest.approx(2.01)


def test_jitter_has_the_mean_asked_for_and_a_seed_repeats_it() -> None:
    def draws(seed: int) -> list[float]:
        lane = Lane(one_way=0, jitter=0.004, kbps=None, rng=random.Random(seed))
        return [lane.draw_jitter() for _ in range(20_000)]

    first = draws(3)
    assert sum(first) / len(first) == pytest.approx(0.004, rel=0.05)
    assert first == draws(3)
    assert first != draws(4)


@pytest.mark.parametrize(
    ("field", "value"), [("rtt_ms", -1.0), ("jitter_ms", float("nan")), ("up_kbps", 0.0), ("down_kbps", -5.0)]
)
def test_a_profile_that_cannot_be_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        LinkProfile(**{"name": "x", "rtt_ms": 10.0, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS.keys())
def test_ready_profiles_say_where_they_come_from_and_whether_they_are_emulated(link: LinkProfile) -> None:
    assert len(link.source) > 20
    assert link.emulated == (link is not LOOPBACK)
    assert ("emulated" in str(link)) == link.emulated
    assert link is LOOPBACK or f"{link.rtt_ms:g} ms" in str(link)
