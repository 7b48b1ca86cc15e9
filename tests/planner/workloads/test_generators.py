from __future__ import annotations

import itertools
import statistics

import pytest

from planner.errors import WorkloadError
from planner.workloads import first, generate, rescale, sample, summarize, window


@pytest.mark.parametrize(
    ("text", "cv"),
    [("poisson:rate=4,requests=20000", 1.0), ("gamma:rate=4,cv=3,requests=40000", 3.0)],
)
def test_arrivals_have_the_rate_and_the_burstiness_asked_for(text: str, cv: float) -> None:
    summary = summarize(generate(text))
    assert summary.rate == pytest.approx(4.0, rel=0.06)
    assert summary.burstiness == pytest.approx(cv, rel=0.08)


def test_a_day_has_a_busy_and_a_quiet_half() -> None:
    arrivals = [request.arrival for request in generate("diurnal:rate=10,peak=2,period=1000,requests=20000,seed=3")]
    busy = sum(arrival % 1000 < 500 for arrival in arrivals) / len(arrivals)
    # The integral of 1 + sin over the first half: (π + 2) / 2π of the day.
    assert busy == pytest.approx(0.818, abs=0.02)
    assert len(arrivals) / arrivals[-1] == pytest.approx(10, rel=0.05)


def test_lengths_follow_their_distribution() -> None:
    requests = list(generate("poisson:requests=20000,prompt=1000~0.5,output=50-150"))
    prompts = [request.prompt_tokens for request in requests]
    assert statistics.median(prompts) == pytest.approx(1000, rel=0.03)
    assert statistics.mean(prompts) == pytest.approx(1000 * 2.718281828 ** (0.5**2 / 2), rel=0.03)
    assert {min(r.output_tokens for r in requests), max(r.output_tokens for r in requests)} == {50, 150}


def test_a_seed_repeats_it_and_a_longer_one_begins_alike() -> None:
    short, long = (list(generate(f"gamma:requests={count},seed=4")) for count in (1500, 3000))
    assert long[:1500] == short
    assert list(generate("gamma:requests=1500,seed=5")) != short


def test_another_rate_leaves_the_lengths_as_they_are() -> None:
    slow, fast = (list(generate(f"poisson:rate={rate},requests=100")) for rate in (1, 8))
    assert [request.prompt_tokens for request in slow] == [request.prompt_tokens for request in fast]
    assert fast[-1].arrival == pytest.approx(slow[-1].arrival / 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weekly:rate=1", "no arrival process 'weekly'"),
        ("poisson:speed=1", "'speed=1' is no parameter"),
        ("poisson:rate=fast", "rate is 'fast'"),
        ("poisson:rate=0", "rate is 0"),
        ("poisson:prompt=many", "no distribution of lengths"),
        ("poisson:prompt=9-3", "no distribution of lengths"),
        ("diurnal:peak=3", "peak is 3"),
        ("poisson:requests=0", "requests is 0"),
    ],
)
def test_an_impossible_generator_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        generate(text)


def test_parts_of_a_workload() -> None:
    whole = generate("poisson:rate=10,requests=5000")
    half = list(sample(whole, 0.5, seed=1))
    assert len(half) == pytest.approx(2500, rel=0.1)
    assert set(half) <= set(whole)
    assert list(sample(whole, 0.5, seed=1)) == half

    dense = rescale(whole, 4)
    assert summarize(dense).rate == pytest.approx(4 * summarize(whole).rate)

    middle = list(window(whole, 100, 200))
    assert all(0 <= request.arrival < 100 for request in middle)
    assert len(middle) == sum(100 <= request.arrival < 200 for request in whole)
    assert list(first(whole, 7)) == list(itertools.islice(whole, 7))
    assert "4 times as dense" in dense.source


@pytest.mark.parametrize("change", [lambda w: sample(w, 0), lambda w: rescale(w, 0), lambda w: window(w, 5, 5)])
def test_an_impossible_part_is_refused(change: object) -> None:
    with pytest.raises(WorkloadError):
        change(generate("poisson"))  # type: ignore[operator]


def test_an_empty_part_has_an_empty_summary() -> None:
    summary = summarize(window(generate("poisson:requests=10"), 1e9))
    assert summary.as_json()["requests"] == 0
    assert summary.as_json()["prompt_tokens"] == {}
