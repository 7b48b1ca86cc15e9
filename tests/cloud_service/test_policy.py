"""The decision which generations go into a pass."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_service.scheduler.policy import PassBudget, Share, Work, plan_pass

#: The machine may be busy; what is checked does not depend on time.
QUICK = settings(deadline=None, max_examples=50)

budgets = st.integers(1, 16).flatmap(
    lambda granularity: st.integers(2 * granularity, 80).map(lambda tokens: PassBudget(tokens, granularity))
)


@st.composite
def many_works(draw: st.DrawFn) -> list[Work]:
    works = []
    for key in range(draw(st.integers(0, 40))):
        decoding = draw(st.booleans())
        works.append(Work(key, 1 if decoding else draw(st.integers(1, 300)), decoding, draw(st.integers(0, 9))))
    return works


@QUICK
@given(many_works(), budgets)
def test_a_pass_is_within_its_budget_and_feeds_nobody_twice_or_too_much(works: list[Work], budget: PassBudget) -> None:
    shares = plan_pass(works, budget)
    pending = {work.key: work.pending for work in works}
    assert sum(share.tokens for share in shares) <= budget.tokens
    assert len({share.key for share in shares}) == len(shares)
    assert all(1 <= share.tokens <= pending[share.key] for share in shares)


@QUICK
@given(many_works(), budgets)
def test_a_pass_is_empty_only_where_there_is_no_work(works: list[Work], budget: PassBudget) -> None:
    assert bool(plan_pass(works, budget)) == bool(works)


@QUICK
@given(many_works(), budgets)
def test_chunks_that_do_not_end_a_prompt_are_multiples_of_the_granularity(
    works: list[Work], budget: PassBudget
) -> None:
    pending = {work.key: work.pending for work in works}
    for share in plan_pass(works, budget):
        assert share.tokens == pending[share.key] or share.tokens % budget.granularity == 0


@QUICK
@given(many_works(), budgets)
def test_decoding_and_prefill_both_move_whenever_both_have_work(works: list[Work], budget: PassBudget) -> None:
    served = {share.key for share in plan_pass(works, budget)}
    for kind in (True, False):
        wanting = {work.key for work in works if work.decoding is kind}
        assert not wanting or served & wanting


@QUICK
@given(many_works(), budgets)
def test_nobody_is_passed_over_for_one_of_its_kind_that_was_served_later(works: list[Work], budget: PassBudget) -> None:
    served = {share.key for share in plan_pass(works, budget)}
    for kind in (True, False):
        left_out = [work.last_pass for work in works if work.decoding is kind and work.key not in served]
        taken = [work.last_pass for work in works if work.decoding is kind and work.key in served]
        assert not left_out or not taken or max(taken) <= min(left_out)


@QUICK
@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 30)), min_size=1, max_size=20), budgets)
def test_every_generation_gets_to_its_end_without_a_pause_longer_than_the_others_need(
    sizes: list[tuple[int, int]], budget: PassBudget
) -> None:
    prompts, answers, last = ([], [], [])
    for prompt, answer in sizes:
        prompts.append(prompt)
        answers.append(answer)
        last.append(0)
    number = 0
    longest_pause = 0
    while any(answers):
        number += 1
        works = [
            Work(key, prompts[key] or 1, decoding=prompts[key] == 0, last_pass=last[key])
            for key in range(len(sizes))
            if answers[key]
        ]
        for share in plan_pass(works, budget):
            longest_pause = max(longest_pause, number - last[share.key])
            last[share.key] = number
            if prompts[share.key]:
                prompts[share.key] -= share.tokens
            else:
                answers[share.key] -= 1
        assert number < 10_000
    # Each pass serves at least one of those that decode and one of those that prefill, the longest waiting first.
    assert longest_pause <= 2 * len(sizes)


def test_decode_tokens_come_first_then_the_rest_of_the_budget_goes_to_prompts() -> None:
    works = [Work(1, 500, False, 3), Work(2, 1, True, 9), Work(3, 40, False, 4)]
    assert plan_pass(works, PassBudget(100)) == [Share(2, 1), Share(1, 99)]
    assert plan_pass(works, PassBudget(600)) == [Share(2, 1), Share(1, 500), Share(3, 40)]


@pytest.mark.parametrize(("tokens", "granularity"), [(1, 1), (0, 1), (100, 64), (10, 0)])
def test_a_budget_that_could_not_hold_both_kinds_is_refused(tokens: int, granularity: int) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        PassBudget(tokens, granularity)
