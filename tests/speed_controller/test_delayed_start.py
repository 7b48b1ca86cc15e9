"""w(l) keeps to its budget, and is monotone in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speed_controller.delayed_start import TAIL, DelayedStart
from speed_controller.errors import SettingError

PROMPTS = st.lists(st.integers(1, 5_000), min_size=1, max_size=60)
TIMES = st.lists(st.floats(0, 10), min_size=1, max_size=60)


@given(prompts=PROMPTS, times=TIMES, budget=st.floats(0, 1))
def test_the_short_prompts_and_the_tail_stay_within_the_budget(prompts, times, budget) -> None:
    start = DelayedStart.calibrated(prompts, times, budget)
    at_once = sum(length for length in prompts if start.wait(length) == 0.0 and length < start.threshold)
    tail = min(TAIL, budget)
    assert at_once <= (budget - tail) * sum(prompts) + 1e-6
    assert start.longest_wait == pytest.approx(float(np.quantile(times, 1 - tail)))


@given(prompts=PROMPTS, times=TIMES, budgets=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_larger_budget_waits_for_nobody_longer(prompts, times, budgets) -> None:
    small, large = (DelayedStart.calibrated(prompts, times, budget) for budget in sorted(budgets))
    assert all(large.wait(length) <= small.wait(length) + 1e-9 for length in prompts)


@pytest.mark.parametrize(("prompts", "times", "budget"), [([], [1.0], 0.5), ([1], [], 0.5), ([1], [1.0], 1.5)])
def test_what_says_nothing_is_refused(prompts, times, budget) -> None:
    with pytest.raises(SettingError):
        DelayedStart.calibrated(prompts, times, budget)
