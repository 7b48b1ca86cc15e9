"""Reasoning models: the thinking is told apart, is not paced, and costs the answer nothing of its grant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk import Finished, HybridClient, Mode, PaceSettings, SplitSettings, Thought, Token
from device_sdk.conversation import Conversation
from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES, Patience, Request
from device_sdk.report import Source
from device_sdk.reporting import answer_of
from device_sdk.testing.simulation import SimulatedCloud, SimulatedDevice, Simulation
from model_runtime.templates import DEFAULT_TEMPLATE
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer
from model_runtime.thinking import ThinkingReader, ThinkingTags, declared_by, thinking_reader
from speed_controller.estimates import CloudForecast, DeviceForecast
from tests.device_sdk.conftest import per_token
from tests.device_sdk.conversation.conftest import UNPACED
from tests.device_sdk.virtual import Model

TAGS = ThinkingTags("<think>", "</think>")
THOUGHT = "The crew was at the pump, and the gate was grün. "
OPENING = "<think>\n"
ANSWER = "The crew is at the north gate."
#: Takes the thinking out of earlier turns, as reasoning models' templates do.
TEMPLATE = DEFAULT_TEMPLATE.replace("message['content']", "message['content'].split('</think>')[-1]")
OPENED = TEMPLATE.replace("assistant\\n'", "assistant\\n<think>\\n'")
assert "<think>" not in TEMPLATE
TEMPLATE = "{#- <think> -#}" + TEMPLATE


def thinker(template: str = TEMPLATE, *, opens: bool = True, **options: object) -> ScriptedEngine:
    tokenizer = ScriptedTokenizer(template=template)
    said = f"{OPENING if opens else ''}{THOUGHT}</think>\n\n{ANSWER}"
    return ScriptedEngine(tokenizer=tokenizer, script=tokenizer.encode(said), **options)  # type: ignore[arg-type]


def parts(reader: ThinkingReader, pieces: list[str]) -> tuple[str, str]:
    found = [reader.push(piece) for piece in pieces] + [reader.end()]
    return "".join(part.thought for part in found), "".join(part.answer for part in found)


@pytest.mark.parametrize(
    ("text", "begun", "thought", "answer"),
    [
        ("<think>\nWhy?</think>\n\nSo.", False, "\nWhy?", "So."),
        ("  <think>Why?</think>So.", False, "Why?", "So."),
        ("Why?</think>\nSo.", True, "Why?", "So."),
        ("So, <think> is a tag</think>.", False, "", "So, <think> is a tag</think>."),
        ("<think>1 </ 2 </thin 3</think>So.", False, "1 </ 2 </thin 3", "So."),
        ("<think>cut sho</thi", False, "cut sho</thi", ""),
        ("<thi", False, "", "<thi"),
        ("<thinker>", False, "", "<thinker>"),
        ("<think></think>\n\n", False, "", ""),
        (" \n", False, "", " \n"),
        ("<think>a</think>b<think>c</think>", False, "a", "b<think>c</think>"),
    ],
)
@given(data=st.data())
def test_thinking_is_told_apart_however_the_text_is_split(data, text, begun, thought, answer) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parts(ThinkingReader(TAGS, begun=begun), pieces) == (thought, answer)


def test_tags_that_are_special_tokens_are_known_by_their_ids() -> None:
    reader = ThinkingReader(TAGS, opening=1, closing=2)
    found = [reader.push("", 1), reader.push("Why", 7), reader.push("?", 8), reader.push("", 2), reader.push("So.", 9)]
    assert [(part.thought, part.answer) for part in found] == [("", ""), ("Why", ""), ("?", ""), ("", ""), ("", "So.")]


def test_the_template_says_which_tags_and_whether_it_opens_them() -> None:
    assert declared_by(DEFAULT_TEMPLATE) is None
    assert declared_by("{{ content.split('[/THINK]') }}[THINK]") == ThinkingTags("[THINK]", "[/THINK]")
    plain, asks, opened = ScriptedTokenizer(), ScriptedTokenizer(template=TEMPLATE), ScriptedTokenizer(template=OPENED)
    question = [{"role": "user", "content": "What does <think>"}]
    assert thinking_reader(plain, plain.render_chat(question)) is None  # type: ignore[arg-type]
    for tokenizer, expected in ((asks, ("", "Why?")), (opened, ("Why?", ""))):
        reader = thinking_reader(tokenizer, tokenizer.render_chat(question))  # type: ignore[arg-type]
        assert reader is not None
        assert parts(reader, ["Why?"]) == expected


@pytest.mark.parametrize("grant", [0, 3, 12, 25, 200])
@pytest.mark.parametrize(("template", "opens"), [(TEMPLATE, True), (OPENED, False)], ids=["says it", "opened"])
async def test_thinking_and_answer_are_streams_of_their_own_across_the_hand_over(serve, grant, template, opens) -> None:
    running = serve(thinker(template, opens=opens))
    device = thinker(template, opens=opens, delay=per_token(0.001))
    split = SplitSettings(grant=grant, max_grant=max(grant, 64), pace=UNPACED.pace)
    async with HybridClient(device=device, cloud=running.url, split=split) as client:
        events = [event async for event in client.stream("Where is the crew? " * 8, stop=["crew was"])]
    answer = events[-1].answer
    assert isinstance(events[-1], Finished)
    thoughts, tokens = ([e for e in events if isinstance(e, kind)] for kind in (Thought, Token))
    assert "".join(event.text for event in thoughts) == answer.thinking == ("\n" if opens else "") + THOUGHT
    assert "".join(event.text for event in tokens) == answer.text == ANSWER
    indices = [event.index for event in events if isinstance(event, Thought | Token)]
    assert indices == list(range(len(answer.token_ids)))
    report = answer.report
    assert report.thinking_tokens == len(thoughts)
    assert report.ttft_ms < report.ttft_visible_ms


async def test_earlier_thinking_is_not_part_of_the_next_prompt() -> None:
    engine = thinker()
    async with (
        HybridClient(device=engine, mode=Mode.ONLY_ON_DEVICE, split=UNPACED) as client,
        Conversation(client, system="A log. " * 20) as conversation,
    ):
        await conversation.send("Where is the crew?")
        second = await conversation.send("And now?")
    assert [turn.answer for turn in conversation.turns] == [ANSWER, ANSWER]
    assert second.thinking == f"\n{THOUGHT}"
    assert second.report.reused_tokens > 100


# --- in virtual time -------------------------------------------------------------------------------------------------

TOKENIZER = ScriptedTokenizer()


def model(thinking: int, answer: int) -> Model:
    said = TOKENIZER.encode("<think>") + [97] * thinking + TOKENIZER.encode("</think>") + [98] * answer
    return lambda output: said[len(output)] if len(output) < len(said) else None


def simulate(thinking: int, *, grant: int = 20, prompt: int = 2_000) -> Simulation:
    machine = GenerationMachine(
        Request(range(10_000, 10_000 + prompt), 2_000, thinking=ThinkingReader(TAGS)),
        SIDES[Mode.SPLIT],
        SplitSettings(grant=grant, max_grant=grant, pace=PaceSettings(pace=0.05)),
        TOKENIZER,
        DeviceForecast(prefill_rate=1_000.0, tpot=0.04),
        CloudForecast(),
        Patience(first_token=5.0, idle=1.0),
    )
    says = model(thinking, 60)
    return Simulation(machine, SimulatedDevice(says), SimulatedCloud(says, ttft=0.2, tpot=0.02)).run()


def test_thinking_is_shown_as_it_comes_and_the_answer_at_its_pace() -> None:
    simulation = simulate(30)
    machine = simulation.machine
    hidden = [piece.hidden for piece in machine.output.pieces]
    showing = machine.showing
    assert hidden == [True] * sum(hidden) + [False] * 60
    assert all(a == b for a, b, h in zip(showing.arrivals, showing.releases, hidden, strict=True) if h)
    report = answer_of(machine, Mode.SPLIT).report
    gaps = [b - a for a, b in zip(showing.visible_releases, showing.visible_releases[1:], strict=False)]
    assert report.max_gap_ms == 1000 * max(gaps)
    assert report.ttft_visible_ms == 1000 * showing.visible_releases[0] > report.ttft_ms
    assert [show.hidden for show in simulation.shown] == hidden


def test_a_grant_is_of_tokens_that_the_user_sees() -> None:
    """The device needs two seconds to read the prompt: the cloud thinks for it, and still gives its twenty tokens."""
    simulation = simulate(40)
    pieces = simulation.machine.output.pieces
    clouds = [piece for piece in pieces if piece.source is Source.CLOUD]
    assert sum(piece.hidden for piece in clouds) > 40
    assert sum(not piece.hidden for piece in clouds) == 20
    assert not simulation.notices


def test_a_device_that_is_ready_takes_over_in_the_middle_of_the_thinking() -> None:
    simulation = simulate(400, prompt=300)
    pieces = simulation.machine.output.pieces
    assert {piece.source for piece in pieces if piece.hidden} == {Source.CLOUD, Source.DEVICE}
    assert {piece.source for piece in pieces if not piece.hidden} == {Source.DEVICE}
