"""The few decisions of a bucket that can be best.

All others are dominated, so that they need not be judged (the tests hold this against trying everything):

- A slower pace needs a smaller grant and costs nothing else: only the slowest allowed pace can be best.
- A smaller keep ratio is ready earlier: only the smallest one that keeps the quality can be best.
- Of the chunks, only the one whose least grant is smallest, or the one that reads the prompt soonest, on average or in
  95 of 100 answers.
- In the grant, the value is linear between the lengths of answers (beyond an answer's length, more grant changes
  nothing): the least grant that keeps the gap, those lengths, and the largest are its corners. Where capacity binds, a
  grant between two corners can be best; a few are offered.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import replace

from planner.core import Route
from planner.cost import Decision, Quantity
from planner.cost.forecast import TTFT_SHARE, hand_over_gap, ready, usual_chunk
from planner.optimizer.problem import Option, Problem, Traffic, judge
from speed_controller.errors import InfeasibleSplitError
from speed_controller.split import grant_needed

#: Grants offered between the least and the largest, evenly in proportion.
BETWEEN = 12
#: Grants put between two of them at once.
DENSER = 8


def options(problem: Problem, traffic: Traffic, *, between: int = BETWEEN) -> list[Option]:
    """The decisions that can be best for this bucket, `between` of them for the capacity's sake alone. Some may miss a
    limit: see `Option.misses`."""
    pace = problem.slowest_pace
    found: list[Option] = []
    if Route.DEVICE in problem.routes:
        found += [judge(problem, traffic, Decision(Route.DEVICE, pace=pace, chunk=chunk)) for chunk in _chunks(problem)]
    if Route.CLOUD in problem.routes:
        found.append(judge(problem, traffic, Decision(Route.CLOUD, pace=pace)))
    if Route.SPLIT in problem.routes:
        found += _splits(problem, traffic, pace, between)
    return found


def _chunks(problem: Problem) -> list[int]:
    block = problem.world.device.prefill_block
    wanted = {max(block, chunk - chunk % block) for chunk in problem.chunks}
    return sorted(wanted) or [usual_chunk(problem.world)]


def _splits(problem: Problem, traffic: Traffic, pace: float, between: int) -> list[Option]:
    floor = problem.limits.slo.quality or 0.0
    ratios = [ratio for ratio in problem.keep_ratios if problem.world.quality.quality(ratio) >= floor]
    if not ratios:
        return []
    ratio = min(ratios, key=lambda ratio: 1.0 if ratio is None else ratio)
    cap = problem.limits.max_grant
    world, longest = problem.world, traffic.longest_prompt
    first, last = world.cloud_first_token(traffic.prompt), world.cloud_first_token(longest)
    kept: list[tuple[int, float, float, Decision]] = []
    for trial in _trials(problem, ratio, pace):
        least = least_grant(problem, traffic, trial)
        if least is not None and least <= cap:
            mean = ready(world, trial, traffic.prompt, first).mean
            kept.append((least, mean, ready(world, trial, longest, last).quantile(TTFT_SHARE), trial))
    if not kept:
        return []
    best = {
        min(kept, key=lambda one: one[:2]),
        min(kept, key=lambda one: (one[1], one[0])),
        min(kept, key=lambda one: (one[2], one[0])),
    }
    judged = [
        judge(problem, traffic, replace(trial, grant=grant))
        for least, _, _, trial in best
        for grant in _grants(traffic, least, cap, between)
    ]
    return [option for option in judged if not option.misses]


def _grants(traffic: Traffic, least: int, cap: int, between: int) -> list[int]:
    corners = {least, cap, *(output for output in traffic.outputs if least < output <= cap)}
    return sorted(corners | {round(least * (cap / least) ** (step / (between + 1))) for step in range(1, between + 1)})


def denser(problem: Problem, traffic: Traffic, found: list[Option], chosen: Option) -> list[Option]:
    """`found` with more grants beside the chosen one: where capacity binds, the best may lie between two that were
    offered. Repeated, it closes in on one."""
    splits = [one.decision for one in found if one.decision.route is Route.SPLIT]
    added: list[Option] = []
    for chunk in {decision.chunk for decision in splits}:
        like = {decision.grant: decision for decision in splits if decision.chunk == chunk}
        grants = sorted(like)
        match chosen.decision.route:
            case Route.SPLIT:
                at = bisect.bisect_left(grants, chosen.decision.grant)
                beside = grants[max(0, at - 1) : at + 2]
            case Route.DEVICE:  # beside it lie the smallest grants
                beside = grants[:2]
            case Route.CLOUD:
                beside = grants[-2:]
        step = max(1, (beside[-1] - beside[0]) // DENSER) if beside else 1
        wanted = set(range(beside[0], beside[-1], step)) - like.keys() if beside else set()
        added += [judge(problem, traffic, replace(like[beside[0]], grant=grant)) for grant in sorted(wanted)]
    return found + [one for one in added if not one.misses]


def near_misses(problem: Problem, traffic: Traffic) -> list[Option]:
    """Decisions for a bucket that has no feasible one, to say what would have to give."""
    cap = problem.limits.max_grant
    floor = problem.limits.slo.max_gap_p99 or problem.limits.max_pace
    found = options(replace(problem, routes=(Route.DEVICE, Route.CLOUD)), traffic)
    if Route.SPLIT not in problem.routes:
        return [option for option in found if option.decision.route in problem.routes]
    for ratio in problem.keep_ratios:
        for trial in _trials(problem, ratio, min(floor, problem.limits.max_pace)):
            least = least_grant(problem, traffic, trial)
            grants = {max(1, cap)} if least is None else {max(1, cap), least}
            found += [judge(problem, traffic, replace(trial, grant=grant)) for grant in grants]
    return [option for option in found if option.decision.route in problem.routes]


def _trials(problem: Problem, ratio: float | None, pace: float) -> list[Decision]:
    return [Decision(Route.SPLIT, 0, ratio, pace, chunk) for chunk in _chunks(problem)]


def least_grant(problem: Problem, traffic: Traffic, decision: Decision) -> int | None:
    """The least grant, from 1, with which the longest prompt keeps the largest gap. None where no grant does: the
    device never catches up, or is too slow after the hand-over.

    `grant_needed` says about where: what it takes for linear comes in whole passes, so it is looked for from a pass
    before on.
    """
    world, prompt, output = problem.world, traffic.longest_prompt, traffic.longest_output
    if problem.limits.slo.max_gap_p99 is None:
        return 1
    limit = problem.limits.slo.max_gap_p99 / (1 + world.error.get("max_gap_ms", 0.0))
    first = world.cloud_first_token(prompt)
    own = ready(world, decision, prompt, first)
    passes = world.device_prefill(prompt, decision.chunk or usual_chunk(world))
    rate = prompt / passes.mean
    try:
        about = grant_needed(
            ready_without=own.mean,
            cloud_ttft=min(first.mean, own.mean),
            pace=limit,
            prefill_rate=rate,
            device_tpot=min(limit, world.device_token(prompt + output)),
        )
    except InfeasibleSplitError:
        return None
    # With the device there at once, what is left of the gap is nothing that a grant could change.
    if hand_over_gap(world, replace(decision, grant=1), first, Quantity.fixed(0.0), prompt, output) > limit * (
        1 + 1e-9
    ):
        return None
    one_pass = (decision.chunk or 1) / rate
    before = math.ceil((one_pass + 3 * math.sqrt(own.variance + first.variance)) / (limit - 1 / rate)) + 1
    # Beyond any sensible grant nothing is left to find: what misses there misses for another reason than the grant.
    for grant in range(max(1, about - before), about + 4 * before + 8):
        trial = replace(decision, grant=grant)
        gap = hand_over_gap(world, trial, first, ready(world, trial, prompt, first), prompt, max(output, grant + 1))
        if gap <= limit * (1 + 1e-9):
            return grant
    return None
