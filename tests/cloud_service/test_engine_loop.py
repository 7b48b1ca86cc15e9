"""The engine's thread, step by step, on a clock that only passes of the engine move."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from cloud_service.refinement.contract import Needs
from cloud_service.scheduler.engine_loop import EngineLoop
from cloud_service.scheduler.generation import Generation
from cloud_service.scheduler.jobs import Emitted, Ended, Event, Failed, Job, Late, Seen
from cloud_service.scheduler.mailbox import Begin, Close, Drain, ExtendGrant, Leave, Mailbox, Reported
from cloud_service.scheduler.passes import PassGuard
from cloud_service.scheduler.policy import PassBudget
from cloud_service.scheduler.seats import Seats
from cloud_service.scheduler.slack import Report
from model_runtime.core import Cancellation, Chunk, Result
from model_runtime.errors import ContextOverflowError, EngineFailedError
from model_runtime.sampling import SamplingParams
from model_runtime.testing import Faults, ScriptedEngine
from tests.cloud_service.cell_engine import CellEngine

PREFILL_S, DECODE_S = 0.001, 0.01


class Bench:
    """An EngineLoop, its virtual clock, and what its listeners heard."""

    def __init__(
        self,
        engine: ScriptedEngine | None = None,
        *,
        places: int = 2,
        tokens: int = 64,
        kv: int | None = None,
        keeps: bool = False,
    ) -> None:
        self.now = 100.0
        self.engine = engine if engine is not None else self.make_engine()
        self.heard: dict[str, list[Event]] = {}
        self.gone: list[int] = []
        self.busy = 0.0
        self.generations: dict[str, Generation] = {}
        self.loop = EngineLoop(
            self.engine,
            PassBudget(tokens),
            places,
            Seats(self.engine, kv or places * self.engine.info.context_length, keeps=keeps),
            mailbox=Mailbox(),
            guard=PassGuard(),
            clock=lambda: self.now,
            deliver=lambda events: [listener(event) for listener, event in events],
            ended=self.gone.append,
            observe=self._observe,
        )

    def make_engine(self, **options: object) -> ScriptedEngine:
        return ScriptedEngine(delay=_pass_seconds, sleep=self._sleep, **options)

    def begin(self, name: str, prompt: int = 10, *, grant: int = 4, **options: object) -> Begin:
        self.heard[name] = []
        job = Job(name, tuple(range(1, prompt + 1)), (), grant, SamplingParams(), **options)
        generation = Generation(
            key=len(self.generations),
            job=job,
            listener=self.heard[name].append,
            tokenizer=self.engine.tokenizer,
            context_length=self.engine.info.context_length,
            arrived=self.now,
        )
        self.generations[name] = generation
        return Begin(generation)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.loop.step([])

    def until_idle(self) -> None:
        before = -1
        while before != len(self.engine.passes):
            before = len(self.engine.passes)
            self.loop.step([])

    def tokens(self, name: str) -> int:
        return sum(len(event.ids) for event in self.heard[name] if isinstance(event, Emitted))

    def end(self, name: str) -> Event:
        """The terminal event, which must be the last and the only one."""
        terminals = [event for event in self.heard[name] if not isinstance(event, Emitted | Seen)]
        assert terminals == self.heard[name][-1:]
        return terminals[0]

    def _sleep(self, seconds: float, cancellation: Cancellation | None) -> bool:
        self.now += seconds
        return cancellation is not None and cancellation.cancelled

    def _observe(self, seconds: float, prefill: int, decode: int) -> None:
        self.busy += seconds


def _pass_seconds(chunks: Sequence[Chunk]) -> float:
    return sum(DECODE_S if len(chunk.tokens) == 1 else len(chunk.tokens) * PREFILL_S for chunk in chunks)


def test_a_grant_is_one_prefill_and_no_pass_for_its_last_token() -> None:
    bench = Bench()
    bench.loop.step([bench.begin("a", 10, grant=4)])
    bench.until_idle()
    assert [len(chunks[0].tokens) for chunks in bench.engine.passes] == [10, 1, 1, 1]
    assert bench.tokens("a") == 4
    assert bench.end("a").reason == "grant"
    assert bench.gone == [0]


def test_usage_is_the_time_of_the_passes_and_the_wait_before_them() -> None:
    bench = Bench(places=1)
    bench.loop.step([bench.begin("a", 10, grant=4), bench.begin("b", 20, grant=2)])
    bench.until_idle()
    first, second = bench.end("a").usage, bench.end("b").usage
    assert (first.prompt_tokens, first.cached_tokens, first.output_tokens) == (10, 0, 4)
    assert (first.queue_ms, first.prefill_ms, first.decode_ms) == pytest.approx((0, 10, 30))
    assert (second.queue_ms, second.prefill_ms, second.decode_ms) == pytest.approx((40, 20, 10))


def test_the_time_of_a_shared_pass_is_shared_out_without_rest() -> None:
    bench = Bench(places=4)
    bench.loop.step([bench.begin(name, size, grant=5) for name, size in (("a", 50), ("b", 30), ("c", 90))])
    bench.until_idle()
    spent = [bench.end(name).usage for name in "abc"]
    assert sum(usage.prefill_ms + usage.decode_ms for usage in spent) == pytest.approx(bench.busy * 1000)


def test_a_used_up_grant_is_held_open_without_compute_and_an_extension_goes_on_from_there() -> None:
    bench = Bench()
    bench.loop.step([bench.begin("a", 10, grant=2, linger=0.3)])
    bench.until_idle()
    assert len(bench.engine.passes) == 2
    assert all(isinstance(event, Emitted) for event in bench.heard["a"])
    bench.now += 0.29
    bench.loop.step([ExtendGrant(0, 3)])
    bench.until_idle()
    assert len(bench.engine.passes) == 3
    assert bench.tokens("a") == 3
    bench.now += 0.31
    bench.steps(1)
    assert bench.end("a").reason == "grant"
    assert bench.end("a").usage.output_tokens == 3


def test_an_extension_to_no_more_than_the_grant_changes_nothing() -> None:
    bench = Bench()
    bench.loop.step([bench.begin("a", 10, grant=2, linger=0.3)])
    bench.until_idle()
    bench.now += 0.29
    bench.loop.step([ExtendGrant(0, 2)])
    bench.now += 0.02
    bench.steps(1)
    assert bench.end("a").usage.output_tokens == 2


def test_an_extension_for_a_generation_that_has_ended_is_ignored() -> None:
    bench = Bench()
    bench.loop.step([bench.begin("a", grant=1)])
    bench.until_idle()
    bench.loop.step([ExtendGrant(0, 9), Leave(0, tell=True)])
    assert bench.end("a").reason == "grant"
    assert len(bench.engine.passes) == 1


def test_who_waits_takes_the_place_of_the_grant_that_was_used_up_first() -> None:
    bench = Bench(places=2)
    bench.loop.step([bench.begin("a", grant=1, linger=9), bench.begin("b", grant=2, linger=9)])
    bench.until_idle()
    bench.loop.step([bench.begin("c", grant=1)])
    assert bench.end("a").reason == "grant"
    assert bench.end("c").reason == "grant"
    assert not [event for event in bench.heard["b"] if isinstance(event, Ended)]


def test_an_empty_grant_ends_at_once_and_costs_nothing() -> None:
    bench = Bench()
    bench.loop.step([bench.begin("a", grant=0, linger=9)])
    assert bench.end("a").reason == "grant"
    assert bench.engine.passes == []


def test_the_answer_may_end_before_the_grant_and_its_last_token_is_not_part_of_it() -> None:
    bench = _with(ScriptedEngine(script=[260, 270, 265]))
    bench.loop.step([bench.begin("a", grant=50, linger=9)])
    bench.until_idle()
    assert [token for event in bench.heard["a"][:-1] for token in event.ids] == [260, 270, 265]
    assert bench.end("a").reason == "eos"


def test_an_answer_stops_where_the_context_is_full() -> None:
    bench = _with(ScriptedEngine(context_length=16))
    bench.loop.step([bench.begin("a", 10, grant=4), ExtendGrant(0, 50)])
    bench.until_idle()
    assert bench.tokens("a") == 6
    assert bench.end("a").reason == "context"


def test_long_prompts_are_cut_into_chunks_between_which_others_decode() -> None:
    bench = Bench(tokens=64)
    bench.loop.step([bench.begin("a", 10, grant=8)])
    bench.loop.step([bench.begin("b", 150, grant=1)])
    bench.until_idle()
    shared = [[len(chunk.tokens) for chunk in chunks] for chunks in bench.engine.passes if len(chunks) == 2]
    assert all(decoded == 1 and decoded + chunk <= 64 for decoded, chunk in shared)
    assert sum(chunk for _, chunk in shared) == 150


def test_a_deadline_that_has_passed_ends_a_generation_before_its_first_token() -> None:
    bench = Bench(places=1)
    bench.loop.step([bench.begin("a", grant=30)])
    bench.loop.step([bench.begin("b", grant=1, deadline=bench.now + 0.1)])
    bench.steps(15)
    assert bench.end("b") == Late()
    assert bench.tokens("a") > 10


def test_a_prompt_that_cannot_make_its_deadline_is_not_prefilled_to_its_end() -> None:
    bench = Bench(tokens=64)
    bench.loop.step([bench.begin("measured", 64, grant=1)])
    bench.loop.step([bench.begin("a", 640, grant=1, deadline=bench.now + 0.3)])
    bench.until_idle()
    assert bench.end("a") == Late()
    assert bench.heard["a"] == [Late()]
    assert len(bench.engine.passes) <= 2


def test_a_deadline_says_nothing_about_later_tokens() -> None:
    bench = Bench()
    bench.loop.step([bench.begin("a", 10, grant=50, deadline=bench.now + 0.05)])
    bench.until_idle()
    assert bench.tokens("a") == 50


def test_stop_frees_the_sequence_and_tells_whom_it_should() -> None:
    bench = Bench(places=1)
    bench.loop.step([bench.begin("a", grant=50)])
    bench.loop.step([Leave(0, tell=True)])
    assert bench.end("a").reason == "stopped"
    bench.loop.step([bench.begin("b", grant=50)])
    bench.loop.step([Leave(1, tell=False)])
    assert all(isinstance(event, Emitted) for event in bench.heard["b"])
    assert bench.gone == [0, 1]
    assert [bench.engine.open() for _ in range(bench.engine.info.max_sequences)]


def test_who_has_ended_is_told_before_the_next_pass() -> None:
    bench = Bench()
    bench.loop.step([bench.begin("a", grant=50)])
    heard_at: list[float] = []
    ended = bench.begin("b", grant=0)
    ended.generation.listener = lambda event: heard_at.append(bench.now)
    before = bench.now
    bench.loop.step([ended])
    assert heard_at == [before]
    assert bench.now > before


def test_draining_holds_no_grant_open() -> None:
    bench = Bench()
    bench.loop.step([bench.begin("a", grant=1, linger=9), bench.begin("b", grant=3, linger=9)])
    bench.steps(1)
    bench.loop.step([Drain()])
    bench.until_idle()
    assert bench.end("a").reason == "grant"
    assert bench.end("b").reason == "grant"
    assert bench.tokens("b") == 3


def test_closing_ends_everything_in_an_error_that_says_to_try_elsewhere() -> None:
    bench = Bench(places=1)
    bench.loop.step([bench.begin("a", grant=50), bench.begin("b", grant=50)])
    bench.loop.step([Close()])
    for name in "ab":
        end = bench.end(name)
        assert isinstance(end, Failed)
        assert (end.code, end.retriable) == ("internal", True)


def test_a_broken_engine_ends_everything_exactly_once() -> None:
    bench = _with(ScriptedEngine(faults=Faults(fail_at=2)))
    bench.loop.step([bench.begin("a", grant=50), bench.begin("b", grant=50), bench.begin("c", grant=50)])
    bench.loop.step([])
    with pytest.raises(EngineFailedError):
        bench.loop.step([])
    bench.loop.fail("broken")
    for name in "abc":
        assert bench.end(name) == Failed("engine", "broken", retriable=True)


class Brittle(ScriptedEngine):
    """Breaks when a sequence is closed."""

    def close(self, sequence: int) -> None:
        raise EngineFailedError("broken at close")


def test_an_engine_that_breaks_when_a_generation_ends_does_not_swallow_its_end() -> None:
    bench = _with(Brittle())
    with pytest.raises(EngineFailedError):
        bench.loop.step([bench.begin("a", grant=1), bench.begin("b", grant=5)])
    bench.loop.fail("broken")
    assert bench.end("a").reason == "grant"
    assert isinstance(bench.end("b"), Failed)


class Choosy(ScriptedEngine):
    """Refuses passes with more than 20 tokens of one sequence, as an engine does whose memory is full."""

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        if any(len(chunk.tokens) > 20 for chunk in chunks):
            raise ContextOverflowError("no room")
        return super().forward(chunks, cancellation)


def test_a_chunk_that_the_engine_refuses_ends_its_own_generation_only() -> None:
    bench = _with(Choosy())
    bench.loop.step([bench.begin("a", 10, grant=3), bench.begin("b", 30, grant=3)])
    bench.until_idle()
    end = bench.end("b")
    assert isinstance(end, Failed)
    assert "no room" in end.message
    assert bench.end("a").reason == "grant"
    assert bench.tokens("a") == 3


class Muddled(ScriptedEngine):
    """Returns logits that nothing can be sampled from, for prompts of 13 tokens."""

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        results = super().forward(chunks, cancellation)
        return [
            Result(result.logits * float("nan")) if len(chunk.tokens) == 13 else result
            for chunk, result in zip(chunks, results, strict=True)
        ]


def test_unusable_logits_end_their_own_generation_and_free_its_place() -> None:
    bench = _with(Muddled(), places=1)
    bench.loop.step([bench.begin("a", 13, grant=3)])
    bench.loop.step([bench.begin("b", 10, grant=3)])
    bench.until_idle()
    assert isinstance(bench.end("a"), Failed)
    assert bench.tokens("b") == 3


def test_a_request_that_breaks_sampling_ends_alone(monkeypatch):
    bench = Bench()
    bench.loop.step([bench.begin("a", 10, grant=3), bench.begin("b", 10, grant=3)])

    def broken(logits, output):
        raise FloatingPointError("overflow")

    monkeypatch.setattr(bench.generations["a"], "_sampler", SimpleNamespace(sample=broken))
    bench.until_idle()
    assert bench.end("a") == Failed("internal", "sampling failed", retriable=False)
    assert bench.tokens("b") == 3


def test_who_needs_a_first_token_sooner_is_seated_first() -> None:
    bench = Bench(places=1)
    bench.loop.step([bench.begin("a", grant=3)])
    bench.loop.step([bench.begin("b", grant=1), bench.begin("c", grant=1, deadline=bench.now + 0.2)])
    bench.until_idle()
    [of_b], [of_c] = ([g for g in bench.gone if bench.generations[name].key == g] for name in "bc")
    assert bench.gone.index(of_c) < bench.gone.index(of_b)


def test_nobody_is_seated_before_all_that_it_may_become_has_room() -> None:
    bench = Bench(CellEngine(100), places=4, kv=100)
    bench.loop.step([bench.begin(name, 20, grant=20) for name in "abc"])
    assert [bench.generations[name].seat is not None for name in "abc"] == [True, True, False]
    bench.until_idle()
    assert [bench.end(name).reason for name in "abc"] == ["grant"] * 3
    assert [bench.tokens(name) for name in "abc"] == [20] * 3


def test_who_needs_little_does_not_pass_by_who_needs_much() -> None:
    bench = Bench(CellEngine(100), places=4, kv=100)
    bench.loop.step([bench.begin("a", 50, grant=10)])
    bench.loop.step([bench.begin("long", 60, grant=10), bench.begin("short", 5, grant=2)])
    assert bench.generations["short"].seat is None
    bench.until_idle()
    assert sorted(bench.gone) == [0, 1, 2]


def test_an_extension_is_granted_as_far_as_there_is_room() -> None:
    bench = Bench(CellEngine(100), places=4, kv=100)
    bench.loop.step([bench.begin("a", 20, grant=10), bench.begin("b", 20, grant=10)])
    bench.loop.step([ExtendGrant(0, 90)])
    bench.until_idle()
    assert (bench.tokens("a"), bench.end("a").reason) == (50, "grant")
    assert bench.tokens("b") == 10


def test_a_used_up_grant_makes_room_for_who_waits() -> None:
    bench = Bench(CellEngine(100), places=4, kv=100)
    bench.loop.step([bench.begin("a", 50, grant=10, linger=9)])
    bench.until_idle()
    bench.loop.step([bench.begin("b", 50, grant=10)])
    assert bench.end("a").reason == "grant"
    assert bench.generations["b"].seat is not None


def test_a_prompt_that_begins_like_a_past_one_is_prefilled_from_there_and_says_so() -> None:
    bench = Bench(CellEngine(200), kv=200, keeps=True)
    bench.loop.step([bench.begin("a", 40, grant=3)])
    bench.until_idle()
    bench.loop.step([bench.begin("b", 60, grant=3)])
    bench.until_idle()
    assert [len(chunks[0].tokens) for chunks in bench.engine.passes] == [40, 1, 1, 20, 1, 1]
    assert bench.end("a").usage.cached_tokens == 0
    assert bench.end("b").usage.cached_tokens == 40
    assert bench.end("b").usage.prompt_tokens == 60


def test_what_a_scorer_wants_to_see_is_not_taken_from_the_past() -> None:
    bench = Bench(CellEngine(200), kv=200, keeps=True)
    bench.loop.step([bench.begin("a", 40, grant=1), bench.begin("b", 40, grant=1, scope="other")])
    bench.until_idle()
    bench.loop.step([bench.begin("rows", 40, grant=1, needs=Needs(layers=(0,), prompt_rows=8))])
    bench.until_idle()
    assert bench.end("rows").usage.cached_tokens == 32
    bench.loop.step([bench.begin("logprobs", 40, grant=1, needs=Needs(logprobs=True))])
    bench.until_idle()
    assert bench.end("logprobs").usage.cached_tokens == 0


def test_a_device_that_says_its_buffer_is_full_yields_to_one_that_is_dry() -> None:
    bench = Bench(places=3, tokens=64)
    # The third one shows what one more in a pass costs.
    bench.loop.step([bench.begin(name, 10, grant=grant) for name, grant in (("full", 40), ("dry", 40), ("short", 3))])
    bench.steps(5)
    bench.loop.step([Reported(0, Report(bench.now, 0, 10.0)), Reported(1, Report(bench.now, 6, 0.001))])
    before = bench.tokens("full"), bench.tokens("dry")
    bench.steps(10)
    assert bench.tokens("full") == before[0]
    assert bench.tokens("dry") == before[1] + 10
    bench.until_idle()
    assert bench.tokens("full") == 40


def _with(engine: ScriptedEngine, **options: int) -> Bench:
    return Bench(engine, **options)
