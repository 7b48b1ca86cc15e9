"""The decision which generations go into a pass, and for how many tokens."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_service.scheduler.policy import LATE_GRACE, Costs, PassBudget, Share, Work, first_token_due, plan_pass

QUICK = settings(max_examples=50)
NOW = 100.0
FREE = Costs()

budgets = st.integers(1, 16).flatmap(
    lambda granularity: st.integers(2 * granularity, 80).map(lambda tokens: PassBudget(tokens, granularity))
)
some_costs = st.builds(Costs, st.floats(0, 0.05), st.floats(0, 0.02), st.floats(0, 0.005))


@st.composite
def many_works(draw: st.DrawFn) -> list[Work]:
    works = []
    for key in range(draw(st.integers(0, 40))):
        decoding = draw(st.booleans())
        due = NOW + draw(st.floats(-5, 5))
        works.append(Work(key, 1 if decoding else draw(st.integers(1, 300)), decoding, due))
    return works


@QUICK
@given(many_works(), budgets, some_costs)
def test_a_pass_is_within_its_budget_and_feeds_nobody_twice_or_too_much(
    works: list[Work], budget: PassBudget, costs: Costs
) -> None:
    shares = plan_pass(works, budget, costs, NOW)
    pending = {work.key: work.pending for work in works}
    assert sum(share.tokens for share in shares) <= budget.tokens
    assert len({share.key for share in shares}) == len(shares)
    assert all(1 <= share.tokens <= pending[share.key] for share in shares)


@QUICK
@given(many_works(), budgets, some_costs)
def test_a_pass_is_empty_only_where_there_is_no_work(works: list[Work], budget: PassBudget, costs: Costs) -> None:
    assert bool(plan_pass(works, budget, costs, NOW)) == bool(works)


@QUICK
@given(many_works(), budgets, some_costs)
def test_chunks_that_do_not_end_a_prompt_are_multiples_of_the_granularity(
    works: list[Work], budget: PassBudget, costs: Costs
) -> None:
    pending = {work.key: work.pending for work in works}
    for share in plan_pass(works, budget, costs, NOW):
        assert share.tokens == pending[share.key] or share.tokens % budget.granularity == 0


@QUICK
@given(many_works(), budgets, some_costs)
def test_prompts_and_devices_that_ran_dry_both_move_in_every_pass(
    works: list[Work], budget: PassBudget, costs: Costs
) -> None:
    served = {share.key for share in plan_pass(works, budget, costs, NOW)}
    prompts = {work.key for work in works if not work.decoding}
    dry = {work.key for work in works if work.decoding and work.due < NOW}
    for wanting in (prompts, dry):
        assert not wanting or served & wanting


@QUICK
@given(many_works(), budgets, some_costs)
def test_nobody_is_passed_over_for_one_of_its_kind_that_is_due_later(
    works: list[Work], budget: PassBudget, costs: Costs
) -> None:
    served = {share.key for share in plan_pass(works, budget, costs, NOW)}
    for decoding in (True, False):
        due = {
            work.key: work.due if decoding else first_token_due(work, costs, NOW)
            for work in works
            if work.decoding is decoding
        }
        left_out = [due[key] for key in due if key not in served]
        taken = [due[key] for key in due if key in served]
        assert not left_out or not taken or max(taken) <= min(left_out)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.integers(1, 8), st.floats(0, 3), st.floats(0.1, 2), st.floats(0, 0.3)),
        min_size=1,
        max_size=8,
    ),
    budgets,
    some_costs,
)
def test_nobody_starves(wishes: list[tuple[int, int, float, float, float]], budget: PassBudget, costs: Costs) -> None:
    """Everyone gets to their end, and nobody waits longer than the work that was due before theirs takes."""
    costs = dataclasses.replace(costs, base_s=costs.base_s + 0.001, prefill_s=costs.prefill_s + 0.0001)
    prompts, answers, arrivals = [w[0] for w in wishes], [w[1] for w in wishes], [w[2] for w in wishes]
    due = [arrival + target for _, _, arrival, target, _ in wishes]
    now, last = 0.0, list(arrivals)
    # All there is to do once, each token in a pass of its own, is more than anyone can have to wait for.
    all_work = sum(prompt * costs.prefill_s + answer * costs.seconds(1, 1) for prompt, answer, *_ in wishes)
    for _ in range(20_000):
        here = [key for key in range(len(wishes)) if answers[key] and arrivals[key] <= now]
        if not here:
            coming = [arrivals[key] for key in range(len(wishes)) if answers[key]]
            if not coming:
                return
            now = min(coming)
            continue
        works = [Work(key, prompts[key] or 1, prompts[key] == 0, due[key]) for key in here]
        shares = plan_pass(works, budget, costs, now)
        decoding = sum(prompts[share.key] == 0 for share in shares)
        now += costs.seconds(sum(share.tokens for share in shares) - decoding, decoding)
        for share in shares:
            key = share.key
            due_before, last[key] = due[key], now
            if prompts[key]:
                prompts[key] -= share.tokens
            else:
                answers[key] -= 1
            if not prompts[key]:
                due[key] = max(due_before, now) + wishes[key][4]
        for key in here:
            assert now - max(last[key], due[key]) <= 2 * all_work + LATE_GRACE
    raise AssertionError("somebody never gets to the end")


def test_without_measurements_decode_tokens_come_first_and_the_rest_of_the_budget_goes_to_prompts() -> None:
    works = [Work(1, 500, False, NOW + 1), Work(2, 1, True, NOW + 9), Work(3, 40, False, NOW + 2)]
    assert plan_pass(works, PassBudget(100), FREE, NOW) == [Share(2, 1), Share(1, 99)]
    assert plan_pass(works, PassBudget(600), FREE, NOW) == [Share(2, 1), Share(1, 500), Share(3, 40)]


COSTS = Costs(base_s=0.010, decode_s=0.010, prefill_s=0.001)


def test_a_full_buffer_yields_to_a_first_token_that_would_be_late() -> None:
    full, dry = Work(1, 1, True, NOW + 9), Work(2, 1, True, NOW + 0.05)
    in_a_hurry = Work(3, 100, False, NOW + 0.1)
    assert plan_pass([full, dry, in_a_hurry], PassBudget(200), COSTS, NOW) == [Share(2, 1), Share(3, 100)]
    has_time = msgspec.structs.replace(in_a_hurry, due=NOW + 5)
    assert {share.key for share in plan_pass([full, dry, has_time], PassBudget(200), COSTS, NOW)} == {1, 2, 3}


def test_a_full_buffer_yields_to_a_device_that_would_run_dry() -> None:
    costs = Costs(base_s=0.010, decode_s=0.010)
    dry = [Work(key, 1, True, NOW + 0.035) for key in range(2)]
    full = [Work(key, 1, True, NOW + 9) for key in range(2, 9)]
    assert [share.key for share in plan_pass([*full, *dry], PassBudget(64), costs, NOW)] == [0, 1]
    alone = plan_pass(full, PassBudget(64), costs, NOW)
    assert len(alone) == len(full)


def test_a_token_that_costs_next_to_nothing_rides_along() -> None:
    costs = Costs(base_s=0.010, decode_s=0.0001, prefill_s=0.001)
    works = [Work(1, 1, True, NOW + 9), Work(2, 1, True, NOW - 1), Work(3, 100, False, NOW + 0.11)]
    assert {share.key for share in plan_pass(works, PassBudget(200), costs, NOW)} == {1, 2, 3}


@pytest.mark.parametrize(("due_in", "chunk"), [(0.2701, 200), (0.1451, 100), (0.020, 50), (-5.0, 50)])
def test_a_chunk_ends_before_the_first_device_runs_dry_but_never_shrinks_below_the_share_of_prompts(
    due_in: float, chunk: int
) -> None:
    works = [Work(1, 1, True, NOW + due_in), Work(2, 1000, False, NOW + 1.5)]
    assert plan_pass(works, PassBudget(201), COSTS, NOW) == [Share(1, 1), Share(2, chunk)]


def test_a_first_token_that_will_be_late_makes_way_for_those_that_will_not_but_not_for_ever() -> None:
    hopeless, hopeful = Work(1, 900, False, NOW + 0.5), Work(2, 100, False, NOW + 1)
    assert plan_pass([hopeless, hopeful], PassBudget(100), COSTS, NOW) == [Share(2, 100)]
    much_later = msgspec.structs.replace(hopeful, due=NOW + 0.6 + LATE_GRACE)
    assert plan_pass([hopeless, much_later], PassBudget(100), COSTS, NOW) == [Share(1, 100)]


@pytest.mark.parametrize(("tokens", "granularity"), [(1, 1), (0, 1), (100, 64), (10, 0)])
def test_a_budget_that_could_not_hold_both_kinds_is_refused(tokens: int, granularity: int) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        PassBudget(tokens, granularity)
