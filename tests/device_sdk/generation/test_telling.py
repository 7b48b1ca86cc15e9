"""What a device tells the service of where it stands: enough to reckon on from, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.generation.cloud_track import CloudTrack, Open
from device_sdk.generation.commands import TellProgress
from device_sdk.generation.plan import Patience
from device_sdk.generation.telling import OFF_BY_SHARE, OFF_BY_TOKENS, Told
from speed_controller.estimates import CloudForecast

# Exact in binary, so that times add up.
PACE = 0.0625
# Numbers come back from a subtraction and an addition.
ROUNDING = 1e-9


def track(received: int) -> CloudTrack:
    attempt = Open(number=1, base=0, grant=10_000, asked_at=0.0, last_at=0.0, received=received)
    return CloudTrack(CloudForecast(), Patience(), state=attempt)


def test_a_device_that_shows_as_it_said_speaks_every_ten_seconds() -> None:
    cloud, times = track(200), []
    for tick in range(1, 201):
        now = tick * PACE
        if cloud.tell(200, tick, PACE, 20.0 - now, now):
            times.append(now)
    assert times == pytest.approx([0.0625, 10.0625])


@pytest.mark.parametrize(
    ("shown", "pace", "ready_in"),
    [(10, PACE, 9.5), (4, PACE, 9.5), (10, 2 * PACE, 9.5), (10, PACE, 4.0), (10, PACE, None), (10, 0.0, 9.5)],
    ids=["as it said", "it stalls", "slower", "ready earlier", "cannot tell any more", "paces no more"],
)
def test_what_the_service_would_not_expect_is_told_within_a_quarter_of_a_second(
    shown: int, pace: float, ready_in: float | None
) -> None:
    cloud = track(50)
    assert cloud.tell(50, 0, PACE, 10.0, 0.0)
    assert not cloud.tell(50, shown, pace, ready_in, 0.2)
    told = cloud.tell(50, shown, pace, ready_in, 0.5)
    expected = [] if (shown, pace, ready_in) == (10, PACE, 9.5) else [TellProgress(1, 50, shown, pace, ready_in)]
    assert told == expected


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 12),
            st.sampled_from([0.0, 0.03, PACE, 0.2]),
            st.one_of(st.none(), st.floats(0.0, 30.0)),
            st.integers(0, 20),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_the_service_is_never_far_wrong_after_the_device_has_considered(
    steps: list[tuple[int, float, float | None, int]],
) -> None:
    cloud, received, shown, known = track(1), 1, 0, Told(0.0, 0, 0.0, None)
    for number, (more_shown, pace, ready_in, more) in enumerate(steps):
        now = number * Patience().progress_every
        received += more
        shown = min(received, shown + more_shown)
        for command in cloud.tell(received, shown, pace, ready_in, now):
            assert isinstance(command, TellProgress)
            assert (command.received, command.shown) == (received, shown)
            at = None if command.ready_in is None else now + command.ready_in
            known = Told(now, command.shown, command.pace, at)
        assert now < known.at + Patience().progress_at_least_every
        assert (known.pace == 0) == (pace == 0)
        assert (known.ready_at is None) == (ready_in is None)
        if pace:
            runs_dry = now + (received - shown) * pace
            expected = known.at + (received - known.shown) * known.pace
            assert abs(runs_dry - expected) <= OFF_BY_TOKENS * pace + ROUNDING
        if known.ready_at is not None and ready_in is not None:
            wrong = abs(known.ready_at - (now + ready_in))
            assert wrong <= max(OFF_BY_TOKENS * pace, OFF_BY_SHARE * ready_in) + ROUNDING
