"""Answers in a shared world: the outline does what the whole machine does; limits that have a closed form."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES
from device_sdk.generation.plan import Request as Asking
from device_sdk.settings import Mode
from device_sdk.testing.simulation import SimulatedCloud, Simulation
from model_runtime.profiles import LinkProfile
from planner.core import Bucket, Request, Route, SplitConfig
from planner.errors import PlannerError
from planner.policies.alone import InCloud, OnDevice
from planner.policies.disco import Disco, calibrate
from planner.policies.kv_shipping import KvShipping
from planner.policies.planned import Planned, PlannedSettings
from planner.policies.split import Split, kept_spans
from planner.simulator.device import Tokens
from planner.simulator.outcome import COLUMNS, paced
from planner.simulator.trace import Tracer
from planner.simulator.world import simulate
from speed_controller import CloudForecast, DeviceForecast, PaceSettings, SpeedController, SplitSettings
from tests.planner.simulator.worlds import hardware, phone, play, rows, setup, workload

REQUESTS = st.lists(
    st.tuples(st.floats(0, 2), st.integers(1, 2000), st.integers(1, 60)),
    min_size=1,
    max_size=4,
    unique_by=lambda drawn: drawn[0],
).map(lambda drawn: [Request(*each) for each in sorted(drawn)])
POLICIES = [
    OnDevice(),
    InCloud(),
    Split(),
    Split("split+refine", 0.4),
    Disco("device", 400, 0.3),
    Disco("server", 400),
    KvShipping(),
]
#: What the cloud and the device went through, as opposed to what was shown.
DEALINGS = ("ttft", "cloud_tokens", "cloud_seconds", "slot_seconds", "bytes_down", "rejected", "failed")


@given(
    requests=REQUESTS,
    rate=st.floats(200, 20_000),
    tpot_ms=st.floats(5, 120),
    block=st.sampled_from([1, 128]),
    spread=st.sampled_from([0.0, 0.15]),
    jitter=st.sampled_from([0.0, 0.05]),
    rtt_ms=st.floats(1, 200),
    link_jitter=st.sampled_from([0.5, 8.0]),  # no two events fall on one instant, whose order would be chance
    places=st.integers(1, 8),
    queue=st.sampled_from([0, 100]),
    keep=st.sampled_from([None, 0.3]),
    grant=st.sampled_from([None, 0, 4, 40]),
)
@example(  # a decode step that takes longer than believed has more asked for between two tokens
    requests=[Request(0.0, 33, 5)], rate=330.0, tpot_ms=101.0, block=1, spread=0.0, jitter=0.0, rtt_ms=1.0,
    link_jitter=0.5, places=1, queue=0, keep=None, grant=None,
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_the_outline_deals_with_the_cloud_as_the_whole_machine_does(
    requests, rate, tpot_ms, block, spread, jitter, rtt_ms, link_jitter, places, queue, keep, grant
) -> None:
    chosen = dataclasses.replace(
        setup(
            device=phone(rate=rate, tpot_ms=tpot_ms, prefill_block=block, spread=spread, jitter=jitter),
            link=LinkProfile("made-up", rtt_ms=rtt_ms, jitter_ms=link_jitter),
            max_sequences=places,
            queue_depth=queue,
        ),
        split=lambda _: SplitSettings(grant=grant),
    )
    policy = Split("split", keep)
    outlined = rows(play(dataclasses.replace(chosen, played=0.0), requests, policy))
    whole = rows(play(chosen, requests, policy))
    for one, other in zip(outlined, whole, strict=True):
        assert {name: one[name] for name in DEALINGS} == pytest.approx(
            {name: other[name] for name in DEALINGS}, nan_ok=True
        )


def test_a_device_much_slower_than_believed_is_played_with_its_pacing() -> None:
    """The outline gives up where more grant is asked for, and the answer goes on as the whole machine has it."""
    requests = [Request(0.2 * n, 1500, 80) for n in range(30)]
    chosen = setup(device=phone(spread=0.3), played=0.0)
    outlined = rows(play(chosen, requests, Split()))
    whole = rows(play(dataclasses.replace(chosen, played=1.0), requests, Split()))
    assert 0 < sum(each["live"] for each in outlined) < 30
    assert [each["cloud_tokens"] for each in outlined] == [each["cloud_tokens"] for each in whole]
    assert all(math.isnan(each["max_gap"]) for each in outlined)  # those in trouble are no sample


@given(requests=REQUESTS, policy=st.sampled_from(POLICIES), queue=st.sampled_from([0, 50]))
@settings(max_examples=25, deadline=None)
def test_every_request_ends_once_and_whole_unless_rejected(requests, policy, queue) -> None:
    world = play(setup(max_sequences=2, queue_depth=queue, device=phone(jitter=0.03)), requests, policy)
    ended = rows(world)
    assert [each["arrival"] for each in ended] == [each.arrival for each in requests]
    for each in ended:
        if each["failed"]:
            assert policy.name == "in-cloud"
            assert each["rejected"]
        else:
            assert each["ttft"] > 0
            assert not math.isnan(each["shown_seconds"])
        assert each["cloud_tokens"] <= each["output_tokens"] + (60 if policy.name == "disco-d" else 0)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_the_seed_decides_everything(policy) -> None:
    requests = [Request(0.1 * n, 300 + 40 * n, 50) for n in range(12)]
    noisy = LinkProfile("made-up", rtt_ms=30, jitter_ms=5, loss=0.05)

    def figures(seed: int) -> list[dict[str, float]]:
        chosen = setup(device=phone(jitter=0.05), cloud=hardware(jitter=0.05), link=noisy, seed=seed)
        return rows(play(chosen, requests, policy))

    first, again, other = figures(1), figures(1), figures(2)
    assert np.array_equal(
        [[row[name] for name in COLUMNS] for row in first],
        [[row[name] for name in COLUMNS] for row in again],
        equal_nan=True,
    )
    assert [row["ttft"] for row in first] != [row["ttft"] for row in other]


def test_alone_in_the_cloud_every_time_is_the_closed_form() -> None:
    link = LinkProfile("made-up", rtt_ms=20)
    chosen = setup(link=link, cloud=hardware(tpot_ms=60), pass_tokens=4096)
    (row,) = rows(play(chosen, [Request(0.0, 800, 30)], InCloud()))
    assert row["ttft"] == pytest.approx(0.020 + 800 / 10_000)
    assert row["shown_seconds"] == pytest.approx(29 * 0.060)
    assert row["cloud_seconds"] == pytest.approx(800 / 10_000 + 30 * 0.060)  # the last sample ends the answer
    assert row["cloud_tokens"] == 30


@given(prompt=st.integers(1, 2000), length=st.integers(1, 60), block=st.sampled_from([1, 128]))
@settings(max_examples=40, deadline=None)
def test_alone_on_the_device_the_first_token_comes_when_the_machine_has_it(prompt, length, block) -> None:
    device = phone(prefill_block=block)
    chosen = setup(device=device)
    world = play(chosen, [Request(0.0, prompt, length)], OnDevice())
    machine = GenerationMachine(
        Asking((1,) * prompt, 10_000),
        SIDES[Mode.ONLY_ON_DEVICE],
        SplitSettings(),
        Tokens(),
        DeviceForecast(prefill_rate=1000.0, tpot=0.04),
        CloudForecast(),
        block=block,
    )
    simulation = Simulation(machine, world.device(0, length), SimulatedCloud(lambda _: None)).run()
    (row,) = rows(world)
    assert row["ttft"] == pytest.approx(machine.showing.releases[0])
    assert row["device_prefill_seconds"] + row["device_decode_seconds"] == pytest.approx(simulation.passes[-1][1])


def test_a_split_whose_grant_is_the_whole_answer_is_the_cloud() -> None:
    """The device is too slow to be there before the cloud is done."""
    chosen = dataclasses.replace(
        setup(device=phone(rate=100.0)), split=lambda _: SplitSettings(grant=1000, max_grant=1000)
    )
    requests = [Request(0.5 * n, 800, 40) for n in range(6)]
    split, cloud = (rows(play(chosen, requests, policy)) for policy in (Split(), InCloud()))
    for ours, theirs in zip(split, cloud, strict=True):
        for name in ("ttft", "cloud_tokens", "cloud_seconds", "slot_seconds"):
            assert ours[name] == pytest.approx(theirs[name])


def test_refinement_takes_work_from_the_device_and_grant_from_the_cloud() -> None:
    requests = [Request(1.0 * n, 2000, 150) for n in range(5)]
    chosen = setup(cloud=hardware(rate=50_000))
    whole, refined = (rows(play(chosen, requests, Split("split", keep))) for keep in (None, 0.5))
    for before, after in zip(whole, refined, strict=True):
        assert after["device_prefill_seconds"] < 0.6 * before["device_prefill_seconds"]
        assert after["cloud_tokens"] < 0.65 * before["cloud_tokens"]
        assert after["ttft"] == pytest.approx(before["ttft"])


@given(prompt=st.integers(1, 5000), keep=st.floats(0.05, 1.0))
def test_kept_spans_are_a_refinement_that_the_machine_takes(prompt, keep) -> None:
    spans = kept_spans(prompt, keep)
    assert spans[-1][1] == prompt
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


@given(
    arrivals=st.lists(st.floats(0, 0.3), min_size=1, max_size=40).map(np.cumsum),
    pace=st.floats(0.01, 0.2),
)
def test_others_are_shown_as_the_controller_shows_at_a_fixed_pace(arrivals, pace) -> None:
    controller, shown = SpeedController(PaceSettings("fixed", pace, min(0.01, pace), 0.5), submitted=0.0), []
    waiting = list(arrivals)
    while waiting or controller.buffered:
        due = controller.next_due()
        if waiting and (due is None or waiting[0] <= due):
            now = waiting.pop(0)
            controller.arrived(now)
        else:
            now = due
        shown += [now] * controller.due(now)
    assert paced(arrivals, pace) == pytest.approx(shown)


def test_a_shipped_cache_comes_as_fast_as_the_link_allows() -> None:
    link = LinkProfile("made-up", rtt_ms=20, down_kbps=8_000)  # 1 MB/s; the prompt's cache is 1 MB
    (row,) = rows(play(setup(link=link), [Request(0.0, 1000, 20)], KvShipping()))
    assert row["bytes_down"] == pytest.approx(1e6, rel=1e-3)
    assert row["max_gap"] == pytest.approx(1.0 + 0.040, abs=0.01)
    assert row["cloud_tokens"] == 1


def test_kv_shipping_needs_to_know_the_size_of_a_cache() -> None:
    with pytest.raises(PlannerError, match="kv_bytes_per_token"):
        play(setup(device=phone(kv_bytes_per_token=None)), [Request(0.0, 100, 5)], KvShipping())


def test_disco_keeps_its_constrained_side_within_the_budget() -> None:
    prompts = list(range(10, 2010, 10))
    server = calibrate("server", prompts, [0.2] * 200, 0.4)
    above = sum(length for length in prompts if length >= server.threshold)
    assert above <= 0.4 * sum(prompts) <= above + 2 * max(prompts)
    device = calibrate("device", prompts, [0.001 * n for n in range(1, 201)], 0.4)
    below = sum(length for length in prompts if length < device.threshold)
    assert below <= 0.35 * sum(prompts) <= below + 2 * max(prompts)
    assert device.longest_wait == pytest.approx(0.19, rel=0.02)  # the tail that one in twenty sees


def test_disco_server_leaves_short_prompts_to_the_device_and_moves_long_answers_to_it() -> None:
    requests = [Request(0.0, 100, 50), Request(1.0, 1000, 300)]
    short, long = rows(play(setup(), requests, Disco("server", 500)))
    assert short["cloud_tokens"] == 0
    assert short["ttft"] == pytest.approx(0.1)
    assert 20 <= long["cloud_tokens"] < 100
    assert long["max_gap"] <= 0.051  # the buffer covers the move
    assert long["device_prefill_seconds"] > 1.0


def test_disco_device_waits_for_the_server_and_helps_when_that_is_late() -> None:
    """One place, taken for seconds: the second prompt gets its answer from the device."""
    requests = [Request(0.0, 500, 200), Request(0.5, 500, 20)]
    first, second = rows(play(setup(max_sequences=1), requests, Disco("device", 0, 0.3)))
    assert first["device_prefill_seconds"] == 0
    assert second["ttft"] == pytest.approx(0.3 + 0.5)


def test_a_plan_decides_by_the_length_of_the_prompt() -> None:
    config = SplitConfig(
        (Bucket(200, Route.DEVICE), Bucket(1000, Route.SPLIT, grant=25), Bucket(None, Route.CLOUD)), max_grant=50
    )
    chosen = dataclasses.replace(setup(), split=PlannedSettings(config))
    requests = [Request(0.0, 100, 60), Request(3.0, 900, 60), Request(6.0, 2000, 60)]
    device, split, cloud = rows(play(chosen, requests, Planned(config, refine=False, keep_ratio=0.5)))
    assert device["cloud_tokens"] == 0
    assert split["cloud_tokens"] == 25
    assert cloud["cloud_tokens"] == 60


def test_a_trace_tells_one_answer_apart() -> None:
    requests = [Request(0.1 * n, 600, 40) for n in range(5)]
    tracer = Tracer(3)
    simulate(dataclasses.replace(setup(), played=0.0), workload(requests), Split(), tracer=tracer)
    spans = [event for event in tracer.events if event["ph"] == "X"]
    assert {event["tid"] for event in spans} == {1, 2, 3}
    assert sum("token" in event["name"] and event["tid"] == 1 for event in tracer.events) >= 40
    assert all(event["ts"] >= -1e-3 and event.get("dur", 0) >= 0 for event in tracer.events)
    assert tracer.text().startswith('{"traceEvents"')
