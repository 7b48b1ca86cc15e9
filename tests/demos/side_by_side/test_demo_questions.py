"""What the demo asks, and what it lets people choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demos.side_by_side.errors import UsageError
from demos.side_by_side.options import parse
from demos.side_by_side.questions import DEFAULT, QUICK, bundled, choose

if TYPE_CHECKING:
    from pathlib import Path


def test_bundled_questions_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    assert bundled(QUICK, 3) == bundled(QUICK, 3)
    assert bundled(QUICK, 3) != bundled(QUICK, 4)


@pytest.mark.parametrize("seed", range(3))
def test_every_bundled_answer_stands_in_its_document(seed: int) -> None:
    for asked, question in zip(DEFAULT, bundled(DEFAULT, seed), strict=True):
        assert question.kind == asked.kind
        assert question.expected is not None
        assert all(line in question.document for line in question.expected.splitlines())
        assert question.messages[-1]["content"].endswith(question.text)
        assert question.text not in question.document
        assert question.correct(f" {question.expected}\n") is True
        assert question.correct(question.expected[:-1]) is False


def test_reports_are_long_enough_to_hand_over_and_short_enough_to_watch() -> None:
    for seed in range(5):
        for question in bundled(DEFAULT, seed):
            if question.kind == "report":
                assert question.expected is not None
                assert 4 <= len(question.expected.splitlines()) <= 8


def test_quick_asks_a_part_of_what_the_default_asks() -> None:
    assert set(QUICK) < set(DEFAULT)
    assert len(choose(parse(["--quick"]))) == len(QUICK)
    assert len(choose(parse([]))) == len(DEFAULT)


def test_ones_own_document_and_question(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text("12 Ödön moved the pump.\n", encoding="utf-8")
    (question,) = choose(parse(["--prompt-file", str(file), "--question", "Who moved it?"]))
    assert question.messages == ({"role": "user", "content": "12 Ödön moved the pump.\n\nWho moved it?"},)
    assert question.correct("Ödön") is None
    assert question.document == "12 Ödön moved the pump."


def test_a_document_alone_is_the_whole_prompt(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text("A long text.\nSum it up.", encoding="utf-8")
    (question,) = choose(parse(["--prompt-file", str(file)]))
    assert question.messages[0]["content"] == "A long text.\nSum it up."
    assert question.text == "Sum it up."


def test_a_question_alone_is_asked_about_a_bundled_document() -> None:
    (question,) = choose(parse(["--question", "What was lost?"]))
    assert question.messages[0]["content"].endswith("\n\nWhat was lost?")
    assert len(question.document.split()) > 300


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "cannot be read"), (b"\xff\xfe", "cannot be read"), (b" \n", "is empty")]
)
def test_a_document_that_is_not_usable_is_named(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    file = tmp_path / "log.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=f"{file}.*{complaint}"):
        choose(parse(["--prompt-file", str(file)]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--engine", "gpt"],
        ["--grant", "-1"],
        ["--grant", "some"],
        ["--kill-cloud-after", "0"],
        ["--temperature", "hot"],
        ["--temperature", "-1"],
        ["--pace-ms", "0"],
        ["--link", "carrier-pigeon"],
        ["--no-such-option"],
    ],
)
def test_options_that_cannot_be_are_refused_with_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_help_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "started in the cloud and finished on the device" in text
    assert "exit codes" in text
