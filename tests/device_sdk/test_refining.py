"""What of a prompt the device reads in any case, and when the cloud is asked about the rest."""

from __future__ import annotations

import pytest

from device_sdk import ConfigurationError, Protected, SplitSettings
from device_sdk.generation.spans import outside, size
from device_sdk.refining import LAST_WINDOW, Refining, refining
from model_runtime.core import Message
from model_runtime.testing import ScriptedTokenizer
from speed_controller.split import DEFAULT_KEEP_RATIO

TOKENIZER = ScriptedTokenizer()
LINES = [f"{number} Crew {number % 7} moved the pump to the north gate, grün 東京." for number in range(400, 440)]
DOCUMENT = "\n".join(LINES)
QUESTION = "Who moved the pump at 412, and where to?\nAnswer in one line."
CHAT = [
    Message(role="system", content="You answer from the log."),
    Message(role="user", content=f"Here is a log.\n{DOCUMENT}\n\n{QUESTION}"),
]


def ask(messages: list[Message], refine=None, split: SplitSettings | None = None, protect=()) -> Refining | None:
    prompt = TOKENIZER.render_chat(messages)
    return refining(messages, prompt, TOKENIZER, split or SplitSettings(), refine, protect)


def text_of(messages: list[Message], spans) -> str:
    prompt = TOKENIZER.render_chat(messages)
    pieces = [TOKENIZER.token_bytes(token) for start, end in spans for token in prompt[start:end]]
    return b"".join(pieces).decode(errors="replace")


def protected_text(messages: list[Message], *protect: Protected) -> str:
    found = ask(messages, True, protect=protect)
    assert found is not None
    return text_of(messages, found.wish.protected)


def test_template_system_text_instruction_and_question_stay() -> None:
    kept = protected_text(CHAT)
    for part in ("system\nYou answer from the log.\nuser\n", "Here is a log.", QUESTION, "\nassistant\n"):
        assert part in kept
    assert LINES[12] not in kept
    assert LINES[-1] not in kept
    found = ask(CHAT, True)
    prompt = TOKENIZER.render_chat(CHAT)
    left_out = outside(found.wish.protected, len(prompt))
    assert size(left_out) > len(prompt) / 2
    assert not {TOKENIZER.im_start, TOKENIZER.im_end} & {
        prompt[p] for start, end in left_out for p in range(start, end)
    }


def test_a_long_last_paragraph_gives_its_last_line_or_the_last_window() -> None:
    one_paragraph = [Message(role="user", content=f"{DOCUMENT}\n{QUESTION}")]
    assert QUESTION.splitlines()[1] in protected_text(one_paragraph)
    one_line = [Message(role="user", content=" ".join(LINES))]
    found = ask(one_line, True)
    prompt = TOKENIZER.render_chat(one_line)
    assert found.wish.protected[-1] == (len(prompt) - LAST_WINDOW, len(prompt))


def test_of_several_turns_only_the_last_question_stays() -> None:
    chat = [*CHAT, Message(role="assistant", content="Crew 6 did. " * 40), Message(role="user", content="And 413?")]
    kept = protected_text(chat)
    assert "And 413?" in kept
    assert "Answer in one line." not in kept
    assert "Crew 6 did. Crew 6 did." not in kept


def test_the_caller_protects_messages_and_parts_of_them() -> None:
    content = CHAT[1]["content"]
    start = content.index(LINES[12])
    assert LINES[12] in protected_text(CHAT, Protected(1, start, start + len(LINES[12])))
    assert DOCUMENT in protected_text(CHAT, Protected(-1))
    assert protected_text(CHAT, Protected(1, 50, 10)) == protected_text(CHAT)


@pytest.mark.parametrize(
    ("split", "refine", "ratio"),
    [
        (SplitSettings(keep_at_least=0), None, DEFAULT_KEEP_RATIO),
        (SplitSettings(refine_from=100_000), None, None),
        (SplitSettings(refine_from=100_000), True, DEFAULT_KEEP_RATIO),
        (SplitSettings(refine_from=100_000), 0.1, 0.1),
        (SplitSettings(keep_ratio=0.6), None, 0.6),
        (SplitSettings(keep_ratio=None), None, None),
        (SplitSettings(keep_ratio=None), True, DEFAULT_KEEP_RATIO),
        (SplitSettings(keep_ratio=1.0), None, None),
        (SplitSettings(), False, None),
        (SplitSettings(), 1.0, None),
    ],
)
def test_the_settings_decide_by_length_and_the_request_overrules_them(split, refine, ratio) -> None:
    found = ask(CHAT, refine, split)
    assert (found and found.wish.keep_ratio) == ratio


def test_a_short_prompt_is_read_whole() -> None:
    assert ask([Message(role="user", content="Who?")]) is None


@pytest.mark.parametrize(
    ("refine", "protect", "expected"),
    [(0.0, [], "refine is 0.0"), (1.5, [], "refine is 1.5"), (None, [Protected(2)], "names message 2; there are 2")],
)
def test_a_bad_wish_is_named(refine, protect, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        ask(CHAT, refine, protect=protect)
