"""What the demo shows: streams, table, picture, and the JSON object that scripts rely on."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from rich.text import Text

from demos.side_by_side.palette import CLOUD, DEVICE, seconds
from demos.side_by_side.runs import as_json
from demos.side_by_side.screen import LiveScreen, PlainScreen, make_screen, summary
from demos.side_by_side.table import savings_lines
from demos.side_by_side.timeline import draw_timeline
from device_sdk.events import Token
from device_sdk.report import Guard, Source
from device_sdk.settings import Mode

if TYPE_CHECKING:
    from pathlib import Path

    from demos.side_by_side.screen import Screen

RUN_KEYS = {
    "mode", "question", "kind", "prompt_tokens", "ttft_ms", "tpot_mean_ms", "max_gap_ms", "pace_ms", "cloud_tokens",
    "device_tokens", "handover_index", "cloud_busy_ms", "agreement", "correct", "finish_reason", "token_ids", "text",
    "prompt_kept", "refinement_ms", "refinement_stages", "guard",
}  # fmt: skip


def test_the_json_object_has_what_scripts_rely_on_and_no_more(make_trio: Any) -> None:
    trio = make_trio()
    result = json.loads(json.dumps(as_json({"cores": 2}, {"link": {}}, list(trio))))
    assert set(result) == {"machine", "profiles", "runs"}
    assert [run["mode"] for run in result["runs"]] == ["ONLY_ON_DEVICE", "ONLY_IN_CLOUD", "SPLIT"]
    for run in result["runs"]:
        assert set(run) == RUN_KEYS
    split = result["runs"][2]
    assert (split["cloud_tokens"], split["device_tokens"], split["handover_index"]) == (10, 30, 10)
    assert split["correct"] is True
    assert split["token_ids"] == list(range(40))
    assert (split["prompt_kept"], split["refinement_ms"], split["guard"]) == (1.0, None, None)


def test_what_was_kept_of_the_prompt_is_said_and_why_all_of_it_was(make_trio: Any) -> None:
    refined = make_trio(prompt_kept=0.27, guard=Guard("passed"))
    assert "the device read 27% of the prompt" in savings_lines([refined])[0]
    assert refined.split.as_json()["guard"] == {"decision": "passed", "reason": ""}
    assert "27% of the prompt read" in summary(refined.split)
    assert "of the prompt read" not in summary(refined.on_device)
    whole = make_trio(prompt_kept=1.0, guard=Guard("flat", "it is spread evenly"))
    assert "the device read all of the prompt (flat: it is spread evenly)" in savings_lines([whole])[0]


def test_nobody_is_said_to_be_correct_where_the_answer_is_not_known(make_trio: Any) -> None:
    assert make_trio(expected=None).split.correct is None
    assert make_trio(expected="something else").split.correct is False


def test_savings_compare_the_split_with_either_alone(make_trio: Any) -> None:
    trio = make_trio()
    assert trio.savings.ttft == pytest.approx(0.2)
    assert trio.savings.cloud_busy == pytest.approx(0.2)
    assert trio.savings.cloud_tokens == pytest.approx(0.25)
    assert savings_lines([trio]) == [
        "1. first token 5.0 times sooner than on the device; cloud busy for 100 ms instead of 500 ms, 5.0 times less"
    ]
    assert "10 tokens from the cloud instead of 40" in savings_lines([make_trio(busy_ms=None)])[0]


def stream(screen: Screen, trio: Any) -> None:
    screen.question(1, 1, trio.question)
    for run in trio:
        with screen.answer(run.mode) as view:
            for index in range(4):
                from_cloud = run.mode is Mode.ONLY_IN_CLOUD or (run.mode is Mode.SPLIT and index < 2)
                view.token(Token(index, f"word{index} ", Source.CLOUD if from_cloud else Source.DEVICE, index))
            if run.mode is Mode.SPLIT:
                view.note("the cloud was lost")
            view.done(run)
    screen.results([trio])


def test_without_a_terminal_sources_are_named_where_they_change(make_trio: Any) -> None:
    out = io.StringIO()
    stream(PlainScreen(Console(file=out, highlight=False, width=80)), make_trio())
    text = out.getvalue()
    assert "\x1b" not in text
    assert "[cloud] word0 word1  [device] word2 word3 " in text
    assert "[device] word0 word1 word2 word3" in text
    assert "the cloud was lost" in text
    assert "…" not in text  # nothing of the table is cut at 80 columns
    assert "5.0 times sooner" in text


def test_on_a_terminal_cloud_and_device_have_their_colours(make_trio: Any) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=100, highlight=False)
    stream(LiveScreen(console), make_trio())
    shown = Text.from_ansi(out.getvalue())

    def colour(word: str) -> str | None:
        style = shown.get_style_at_offset(console, shown.plain.rindex(word))
        return style.color.name if style.color else None

    assert [colour(f"word{index}") for index in range(4)] == [CLOUD, CLOUD, DEVICE, DEVICE]
    assert "the cloud was lost" in shown.plain


def test_colours_are_left_out_where_the_user_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert type(make_screen(quiet=False)) is PlainScreen


def test_quiet_says_nothing_on_stdout(make_trio: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stream(make_screen(quiet=True), make_trio())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("first token") == 3


@pytest.mark.parametrize(("tokens", "cloud_tokens"), [(40, 10), (200, 10), (40, 0), (1, 1), (0, 0)])
def test_a_picture_is_drawn_whoever_answered(make_trio: Any, tmp_path: Path, tokens: int, cloud_tokens: int) -> None:
    path = tmp_path / "new" / "timeline.png"
    draw_timeline(make_trio(tokens, cloud_tokens), "emulated, made up", path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_refinement_is_marked_in_the_picture(make_trio: Any, tmp_path: Path) -> None:
    plain, refined = tmp_path / "plain.png", tmp_path / "refined.png"
    draw_timeline(make_trio(), "emulated, made up", plain)
    draw_timeline(make_trio(prompt_kept=0.3, guard=Guard("passed")), "emulated, made up", refined)
    assert plain.read_bytes() != refined.read_bytes()


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(None, "–"), (0.4, "0 ms"), (994.0, "994 ms"), (996.0, "1.00 s"), (12_340.0, "12.34 s")]
)
def test_times_are_written_for_people(milliseconds: float | None, text: str) -> None:
    assert seconds(milliseconds) == text
