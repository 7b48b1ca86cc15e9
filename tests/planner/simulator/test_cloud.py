"""The cloud in virtual time: every generation ends once, queues as theory says, passes in one go as one by one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.testing.virtual_time import EventLoop
from planner.core import CloudProfile
from planner.simulator.cloud.accelerator import Accelerator
from planner.simulator.cloud.gateway import Cloud
from planner.simulator.cloud.job import Job
from planner.simulator.cloud.prefix_cache import PrefixCache
from planner.simulator.pass_times import PassTimes
from tests.planner.simulator.worlds import hardware


@dataclass
class Ear:
    tokens: list[tuple[int, float]] = field(default_factory=list)
    ends: list[tuple[str, float]] = field(default_factory=list)

    def token(self, job: Job, index: int, time: float) -> None:
        assert not self.ends, "a token after the end"
        self.tokens.append((index, time))

    def ended(self, job: Job, end: str, time: float) -> None:
        self.ends.append((end, time))


JOB = st.fixed_dictionaries(
    {
        "at": st.floats(0, 3),
        "prompt": st.integers(1, 3000),
        "length": st.integers(1, 60),
        "grant": st.integers(1, 70),
        "watched": st.booleans(),
        "linger": st.sampled_from([0.0, 0.3]),
        "stop_at": st.none() | st.floats(0, 4),
        "extend": st.none() | st.tuples(st.floats(0, 4), st.integers(1, 80)),
        "prefix_hashes": st.sampled_from([(), (1, 2), (1, 3)]),
    }
)


@given(
    jobs=st.lists(JOB, min_size=1, max_size=25),
    prefill_instances=st.integers(0, 2),
    places=st.integers(1, 6),
    queue=st.integers(0, 4),
    cache=st.sampled_from([0, 2048]),
    deadline=st.none() | st.floats(0.05, 1.0),
    jitter=st.sampled_from([0.0, 0.05]),
)
@settings(max_examples=150, deadline=None)
def test_every_generation_ends_once_whatever_happens(
    jobs, prefill_instances, places, queue, cache, deadline, jitter
) -> None:
    loop = EventLoop()
    profile = CloudProfile(
        hardware(jitter=jitter, kv_bytes_per_token=100_000),
        instances=3,
        prefill_instances=prefill_instances,
        max_sequences=places,
        queue_depth=queue,
        prefix_cache_tokens=cache,
        first_token_deadline=deadline,
    )
    cloud = Cloud(profile, loop, seed=1)
    made = []
    for plan in jobs:
        job = Job(
            Ear(), plan["prompt"], plan["length"], plan["grant"], plan["prefix_hashes"], plan["watched"], plan["linger"]
        )
        made.append((plan, job))
        loop.at(plan["at"], lambda job=job: cloud.submit(job))
        if plan["stop_at"] is not None:
            loop.at(max(plan["at"], plan["stop_at"]), lambda job=job: cloud.stop(job))
        if plan["extend"] is not None:
            at, grant = plan["extend"]
            loop.at(max(plan["at"], at), lambda job=job, grant=grant: cloud.extend(job, grant))
    loop.run()
    for plan, job in made:
        ear = job.listener
        assert len(ear.ends) == 1
        end = ear.ends[0][0]
        most = max(plan["grant"], plan["extend"][1] if plan["extend"] else 0)
        assert job.delivered <= min(most, plan["length"])
        assert (end == "rejected") == (job.given == 0 and end != "stopped")
        if end == "eos":
            assert job.delivered == plan["length"]
        if end == "grant":
            assert job.given >= plan["grant"]
        if plan["watched"]:
            assert [index for index, _ in ear.tokens] == list(range(job.delivered))
            assert [time for _, time in ear.tokens] == [job.first_at, *job.times][: job.delivered]
        elif job.given:
            assert [index for index, _ in ear.tokens] == [0]
        assert job.times == sorted(job.times)
    for instance in cloud.instances:
        assert instance.held == 0
        assert instance.busy_seconds <= loop.now + 1e-9
    given_time = sum(job.prefill_seconds + job.decode_seconds for _, job in made)
    assert given_time == pytest.approx(sum(each.busy_seconds for each in cloud.instances), abs=1e-6)


@given(
    jobs=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 2000), st.integers(1, 150)), min_size=1, max_size=12),
    places=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_passes_made_in_one_go_are_those_made_one_by_one(jobs, places) -> None:
    def times(watched: bool) -> list[list[float]]:
        loop = EventLoop()
        profile = CloudProfile(hardware(), max_sequences=places, queue_depth=100)
        cloud = Cloud(profile, loop, seed=1)
        made = [Job(Ear(), prompt, length, length + 1, watched=watched) for _, prompt, length in jobs]
        for (at, _, _), job in zip(jobs, made, strict=True):
            loop.at(at, lambda job=job: cloud.submit(job))
        loop.run()
        return [[job.first_at, *job.times] for job in made]

    for one_go, one_by_one in zip(times(False), times(True), strict=True):
        assert one_go == pytest.approx(one_by_one)


def test_one_place_with_poisson_arrivals_waits_as_an_m_d_1_queue_does() -> None:
    """Pollaczek and Khinchine: mean wait = ρ·D / (2·(1 − ρ)) for service times that are all D."""
    loop, rng, at, jobs = EventLoop(), random.Random(3), 0.0, []
    service, load = 0.1, 0.7
    cloud = Cloud(CloudProfile(hardware(), max_sequences=1, queue_depth=10_000, pass_tokens=4096), loop, seed=1)
    for _ in range(8_000):
        at += rng.expovariate(load / service)
        job = Job(Ear(), 1000, 1, 1)
        jobs.append(job)
        loop.at(at, lambda job=job: cloud.submit(job))
    loop.run()
    waits = [job.first_at - job.arrived - service for job in jobs]
    assert sum(waits) / len(waits) == pytest.approx(load * service / (2 * (1 - load)), rel=0.1)
    assert cloud.instances[0].busy_seconds / loop.now == pytest.approx(load, rel=0.03)


def test_a_pass_over_counted_sequences_takes_what_the_profile_says_for_listed_ones() -> None:
    profile = hardware()
    accelerator = Accelerator(PassTimes(profile), np.random.default_rng(0))
    for decoding, chunks in ((0, [(0, 300)]), (1, []), (9, []), (9, [(512, 100)]), (3, [(0, 200), (200, 10)])):
        listed = [*([(1000, 1)] * decoding), *chunks]
        assert accelerator.seconds(decoding, 1000.0, chunks) == pytest.approx(profile.pass_ms(listed) / 1000)


def test_a_shared_prefix_is_read_once() -> None:
    loop = EventLoop()
    profile = CloudProfile(hardware(), prefix_cache_tokens=4096)
    cloud = Cloud(profile, loop, seed=1, block_tokens=512)
    first, second = (Job(Ear(), 1200, 1, 1, (7, 8)) for _ in range(2))
    loop.at(0.0, lambda: cloud.submit(first))
    loop.at(1.0, lambda: cloud.submit(second))
    loop.run()
    assert (first.cached, second.cached) == (0, 1024)
    assert second.prefill_seconds == pytest.approx(0.020)  # 176 tokens; no pass is shorter than a decoded token's


@given(
    prompts=st.lists(st.lists(st.integers(0, 30), max_size=8, unique=True), max_size=40),
    blocks=st.integers(1, 10),
)
def test_the_prefix_cache_keeps_to_its_size_and_to_what_it_was_given(prompts, blocks) -> None:
    cache, seen = PrefixCache(blocks * 16, 16), set()
    for hashes in prompts:
        length = 16 * len(hashes) + 5
        matched = cache.match(hashes, length)
        assert matched <= length - 1
        assert all(block in seen for block in hashes[: matched // 16])
        cache.add(hashes)
        seen.update(hashes)
        assert len(cache._blocks) <= blocks
        assert cache.match(hashes, length) == 16 * min(len(hashes), blocks)


def test_decoding_apart_frees_the_prefill_and_holds_a_place_for_each_token() -> None:
    loop = EventLoop()
    profile = CloudProfile(hardware(share=0.0), instances=2, prefill_instances=1, max_sequences=1, queue_depth=10)
    cloud = Cloud(profile, loop, seed=1)
    first, second = (Job(Ear(), 1000, 10, 11) for _ in range(2))
    loop.at(0.0, lambda: cloud.submit(first))
    loop.at(0.0, lambda: cloud.submit(second))
    loop.run()
    assert first.first_at == pytest.approx(0.1)
    assert second.first_at == pytest.approx(0.2)  # reads while the first one decodes
    assert first.slot_seconds == pytest.approx(10 * 0.020)
    assert second.times[0] == pytest.approx(first.times[-1] + 0.020)  # but has to wait for its place
