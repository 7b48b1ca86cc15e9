"""Sampling against transformers' processors (recorded), closed forms, and the distributions it claims to draw from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.errors import BadInputError, BadTokenError, EngineFailedError
from model_runtime.sampling import Sampler, SamplingParams

REFERENCE = json.loads((Path(__file__).parent / "references" / "sampling.json").read_text(encoding="utf-8"))


def logits_of(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: "-".join(map(str, case["params"].values())))
def test_the_distribution_is_that_of_transformers(case: dict[str, Any]) -> None:
    sampler = Sampler(SamplingParams(**case["params"]), case["prompt"])
    found = sampler.probabilities(logits_of(*case["logits"]), case["output"])
    kept = {int(token): probability for token, probability in case["probabilities"].items()}
    assert set(np.flatnonzero(found)) <= set(kept)
    expected = np.array([kept.get(token, 0.0) for token in range(found.size)])
    # Recorded with 7 decimals, computed there in float32.
    np.testing.assert_allclose(found, expected, atol=2e-6)
    missed = set(kept) - set(np.flatnonzero(found))
    assert all(kept[token] < 1e-7 for token in missed)


def test_presence_and_frequency_follow_their_definition() -> None:
    """logit - presence * [count > 0] - frequency * count, over the output only (OpenAI's API reference)."""
    params = SamplingParams(temperature=1.0, presence_penalty=0.5, frequency_penalty=0.25)
    logits = logits_of(1.0, 2.0, 3.0, 4.0)
    expected = np.exp(np.array([1.0, 2.0 - 0.5 - 0.25, 3.0, 4.0 - 0.5 - 3 * 0.25]))
    found = Sampler(params, [0, 2, 2]).probabilities(logits, [3, 1, 3, 3])
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-6)


def test_the_repetition_penalty_comes_before_the_others() -> None:
    params = SamplingParams(temperature=1.0, repetition_penalty=2.0, presence_penalty=1.0)
    expected = np.exp(np.array([-4.0, 6.0 / 2 - 1.0, 5.0]))
    found = Sampler(params, [0]).probabilities(logits_of(-2.0, 6.0, 5.0), [1])
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-6)


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = logits_of(0.0, 7.0, 3.0, 7.0)
    sampler = Sampler(SamplingParams(top_k=1, top_p=0.1, seed=99), [])
    assert sampler.sample(logits, []) == 1
    np.testing.assert_array_equal(sampler.probabilities(logits, []), [0, 1, 0, 0])


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.6, top_k=4, seed=3),
        SamplingParams(temperature=1.5, top_p=0.8, seed=2**63 - 1),
        SamplingParams(temperature=1.0, min_p=0.2, seed=17),
    ],
    ids=["plain", "top_k", "top_p", "min_p"],
)
def test_drawn_as_often_as_the_distribution_says(params: SamplingParams) -> None:
    """Pearson's chi-square over 20,000 positions; the limit is passed by chance once in 10,000 runs."""
    logits = np.linspace(2.0, -2.0, 8, dtype=np.float32)
    sampler = Sampler(params, [])
    positions = 20_000
    drawn = [sampler.sample(logits, range(position)) for position in range(positions)]
    observed = np.bincount(drawn, minlength=logits.size)
    # By the definition of the filters, not by our own function.
    weights = np.exp(logits.astype(np.float64) / params.temperature)
    probabilities = weights / weights.sum()
    if params.top_k:
        probabilities[params.top_k :] = 0
    if params.top_p < 1:
        before = np.cumsum(probabilities) - probabilities
        probabilities[before >= params.top_p] = 0
    probabilities[probabilities < params.min_p * probabilities.max()] = 0
    expected = positions * probabilities / probabilities.sum()
    assert observed[expected == 0].sum() == 0
    possible = expected > 0
    statistic = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    # Wilson and Hilferty's approximation of the 99.99% quantile.
    limit = freedom * (1 - 2 / (9 * freedom) + 3.719 * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < limit


def test_neighbouring_positions_and_seeds_are_independent() -> None:
    """Of two uniform draws over 4 tokens a quarter are equal: within 4 standard deviations of 20,000 trials."""
    logits = np.zeros(4, dtype=np.float32)
    first, second = (Sampler(SamplingParams(temperature=1.0, seed=seed), []) for seed in (1, 2))
    draws = np.array([first.sample(logits, range(position)) for position in range(20_001)])
    others = np.array([second.sample(logits, range(position)) for position in range(20_001)])
    tolerance = 4 * math.sqrt(0.25 * 0.75 / 20_000)
    assert abs((draws[1:] == draws[:-1]).mean() - 0.25) < tolerance
    assert abs((draws == others).mean() - 0.25) < tolerance


def test_the_noise_is_fixed_for_ever() -> None:
    """Cloud and device may run different releases: the same seed and position must draw the same token."""
    sampler = Sampler(SamplingParams(temperature=1.0, seed=7), [])
    logits = np.zeros(1000, dtype=np.float32)
    assert [sampler.sample(logits, range(position)) for position in (0, 1, 2, 1000)] == [896, 370, 195, 459]


LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.floats(0.0, 3.0),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
    repetition_penalty=st.floats(0.5, 2.0),
    presence_penalty=st.floats(-2.0, 2.0),
    frequency_penalty=st.floats(-2.0, 2.0),
    seed=st.integers(0, 2**63 - 1),
)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), values=LOGITS, params=PARAMS)
def test_a_pure_function_whatever_was_sampled_before(data: st.DataObject, values: list[float], params: Any) -> None:
    """Counting as the output grows gives what counting afresh gives, also where the output is another one."""
    logits = logits_of(*values)
    before = logits.copy()
    ids = st.lists(st.integers(0, len(values) - 1), max_size=6)
    prompt = data.draw(ids)
    old = Sampler(params, prompt)
    for output in data.draw(st.lists(ids, max_size=4)):
        grown: list[int] = []
        for token in output:
            grown.append(token)
            fresh = Sampler(params, prompt)
            assert old.sample(logits, grown) == fresh.sample(logits, tuple(grown))
    np.testing.assert_array_equal(logits, before)


@settings(deadline=None, max_examples=50)
@given(values=LOGITS, params=PARAMS, padding=st.integers(1, 20), position=st.integers(0, 1000))
def test_a_padded_vocabulary_draws_the_same(values: list[float], params: Any, padding: int, position: int) -> None:
    """Engines pad the vocabulary differently; ids that cannot be change nothing."""
    unpenalised = SamplingParams(params.temperature, params.top_k, params.top_p, params.min_p, seed=params.seed)
    sampler = Sampler(unpenalised, [])
    padded = logits_of(*values, *[-math.inf] * padding)
    assert sampler.sample(padded, range(position)) == sampler.sample(logits_of(*values), range(position))


def test_a_tiny_difference_in_logits_hardly_ever_changes_the_token() -> None:
    """Two engines' logits differ by 1e-4: of 2,000 draws over 200 near-equal tokens a few change."""
    random = np.random.default_rng(5)
    sampler = Sampler(SamplingParams(temperature=0.8, seed=11), [])
    changed = 0
    for position in range(2_000):
        logits = random.normal(0, 1, 200).astype(np.float32)
        nearly = (logits + random.normal(0, 1e-4, 200)).astype(np.float32)
        changed += sampler.sample(logits, range(position)) != sampler.sample(nearly, range(position))
    assert changed <= 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_unusable_logits_are_the_engines_fault(value: float, temperature: float) -> None:
    sampler = Sampler(SamplingParams(temperature=temperature), [])
    with pytest.raises(EngineFailedError, match=r"position 2: (1 NaN and 0|0 NaN and 1) \+inf"):
        sampler.sample(logits_of(0.0, value, -math.inf), [0, 1])
    with pytest.raises(EngineFailedError, match="every token is at -inf"):
        sampler.sample(logits_of(-math.inf, -math.inf), [])


def test_impossible_tokens_are_never_drawn() -> None:
    sampler = Sampler(SamplingParams(temperature=100.0), [])
    logits = logits_of(-math.inf, 0.0, -math.inf)
    assert {sampler.sample(logits, range(position)) for position in range(200)} == {1}


def test_bad_shapes_and_ids_are_the_callers_fault() -> None:
    with pytest.raises(BadInputError, match=r"shape \(vocabulary,\)"):
        Sampler(SamplingParams(), []).sample(np.zeros((1, 4), dtype=np.float32), [])
    penalised = SamplingParams(repetition_penalty=1.5)
    with pytest.raises(BadTokenError, match="outside the 2 ids"):
        Sampler(penalised, [2]).sample(logits_of(0.0, 1.0), [])
    with pytest.raises(BadTokenError, match="outside the 2 ids"):
        Sampler(penalised, []).sample(logits_of(0.0, 1.0), [-1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("min_p", -0.1),
        ("min_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-300),
        ("repetition_penalty", 101.0),
        ("presence_penalty", math.inf),
        ("frequency_penalty", -101.0),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_params_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(BadInputError, match=field):
        SamplingParams(**{field: value})
