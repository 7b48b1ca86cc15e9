"""Limits of callers, in virtual time where the library reads a clock."""

from __future__ import annotations

import asyncio

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits.aio.storage import memory

from cloud_service.auth import Caller
from cloud_service.keys.records import KeyLimits
from cloud_service.limits import CallerLimits, LimitStoreError, open_store, wait_for

ALICE, BOB = Caller("alice"), Caller("bob")


class Clock:
    """Stands for the `time` module of the store."""

    def __init__(self) -> None:
        self.now = 1_000_000_007.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(memory, "time", made)
    return made


@pytest.fixture
def redis_url(monkeypatch):
    """The address of a Redis in this process."""
    server = fakeredis.FakeServer()
    monkeypatch.setattr("redis.asyncio.Redis.from_url", lambda *_, **__: fakeredis.FakeAsyncRedis(server=server))
    return "redis://in-this-process:6379"


def caller_limits(**limits: int) -> CallerLimits:
    return CallerLimits(KeyLimits(**limits), open_store("memory://"))


async def test_concurrent_generations_are_counted_by_caller():
    limits = caller_limits(max_generations=2)
    assert await limits.admit(ALICE, 1) is None
    assert await limits.admit(ALICE, 1) is None
    reached = await limits.admit(ALICE, 1)
    assert reached is not None
    assert reached.retry_after_s is None
    assert await limits.admit(BOB, 1) is None
    limits.release(ALICE)
    assert await limits.admit(ALICE, 1) is None
    assert (limits.running(ALICE), limits.running(BOB), limits.running(Caller("eve"))) == (2, 1, 0)


async def test_a_keys_own_limits_go_before_the_services():
    limits = caller_limits(max_generations=1)
    carol = Caller("carol", KeyLimits(max_generations=2))
    assert [await limits.admit(carol, 1) is None for _ in range(3)] == [True, True, False]
    assert [await limits.admit(ALICE, 1) is None for _ in range(2)] == [True, False]


@settings(max_examples=50)
@given(st.integers(1, 20), st.lists(st.tuples(st.floats(0, 40), st.integers(1, 20)), max_size=60))
def test_no_minute_holds_more_than_two_allowances_and_a_wait_that_was_named_is_enough(per_minute, arrivals):
    clock = Clock()

    async def check() -> None:
        limits = caller_limits(tokens_per_minute=per_minute)
        spent: list[tuple[float, int]] = []
        for pause, cost in arrivals:
            clock.now += pause
            reached = await limits.spend(ALICE, cost)
            if reached is not None and cost > per_minute:
                assert reached.retry_after_s is None
                continue
            if reached is not None:
                assert sum(tokens for at, tokens in spent if at > clock.now - 120) + cost > per_minute
                assert 0 <= reached.retry_after_s <= 120
                clock.now += reached.retry_after_s + 1e-3
                assert await limits.spend(ALICE, cost) is None
            spent.append((clock.now, cost))
        for start, _ in spent:
            assert sum(tokens for at, tokens in spent if start <= at < start + 60) <= 2 * per_minute

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "time", clock)
        asyncio.run(check())


@given(
    st.integers(1, 50), st.integers(1, 50), st.integers(0, 50), st.floats(0, 60), st.integers(0, 50), st.floats(60, 120)
)
def test_a_wait_is_zero_exactly_where_there_is_room(cost, limit, previous, previous_left, current, current_left):
    if cost > limit:
        return
    wait = wait_for(cost, limit, previous, previous_left, current, current_left)
    assert 0 <= wait <= 120
    assert (wait == 0) == (previous * previous_left / 60 + current + cost <= limit) or wait < 1e-6


async def test_requests_that_are_refused_for_their_number_cost_no_tokens(clock):
    limits = caller_limits(requests_per_minute=1, tokens_per_minute=10)
    assert await limits.admit(ALICE, 5) is None
    assert "requests" in (await limits.admit(ALICE, 5)).message
    assert await limits.spend(ALICE, 5) is None
    assert "tokens" in (await limits.spend(ALICE, 1)).message


async def test_instances_share_what_redis_counts(redis_url):
    one, other = (CallerLimits(KeyLimits(tokens_per_minute=10), open_store(redis_url)) for _ in range(2))
    assert await one.spend(ALICE, 6) is None
    assert 0 < (await other.spend(ALICE, 6)).retry_after_s <= 120
    assert await other.spend(ALICE, 4) is None
    assert await other.spend(BOB, 6) is None
    await one.close()
    await other.close()


async def test_where_the_store_is_away_callers_go_uncounted_and_it_is_counted_how_often():
    errors = []
    limits = CallerLimits(KeyLimits(requests_per_minute=1), open_store("redis://127.0.0.1:9"), lambda: errors.append(1))
    assert await limits.admit(ALICE, 1) is None
    assert await limits.admit(ALICE, 1) is None
    assert errors


@pytest.mark.parametrize("address", ["mongodb://h", "nonsense", "redis://:hunter22@h:port"])
def test_a_store_that_is_none_is_named_without_its_password(address):
    with pytest.raises(LimitStoreError) as refused:
        open_store(address)
    assert "hunter22" not in str(refused.value)
