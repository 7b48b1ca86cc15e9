"""`python -m demos.chat.tour`: the client shown by a script, on a real or a virtual display, with pictures.

Asks about a document of 2,000 tokens, waits for the hand-over, compares, pulls the network and then kills the cloud's
process in the middle of answers, and opens one again from the history. With `--scripted` no model runs: for pictures of
every state. Prints one JSON object with what happened, and ends with 1 where something did not; whether the models said
what is right is told, and is no failure of the program. Nothing that was asked or set is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demos.chat.display import NoDisplayError, virtual_display

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demos.chat.ui.guide import Guide


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    started = time.perf_counter()
    options = _parser().parse_args(arguments)
    width, height = options.size
    with ExitStack() as stack:
        if not os.environ.get("DISPLAY") and os.environ.get("QT_QPA_PLATFORM") != "offscreen" and _unix():
            try:
                screen = virtual_display(width * options.scale + 80, height * options.scale + 80)
                os.environ["DISPLAY"] = stack.enter_context(screen)
            except NoDisplayError as error:
                print(f"tour: {error}", file=sys.stderr)
                return 2
        os.environ["QT_SCALE_FACTOR"] = str(options.scale)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pd-chat-tour-")))
        from demos.chat.cli import demo_settings
        from demos.chat.ui.guide import Guide

        settings = dataclasses.replace(demo_settings(), theme=options.theme, reduced_motion=True)
        guide = Guide(settings, folder, options.out, (width, height), scripted=options.scripted)
        # With all imports, from the start of the program but for Python's own.
        happened: dict[str, Any] = {
            "window_ms": round(1000 * (time.perf_counter() - started)),
            # Of this process's own time: what an idle machine would take, at most.
            "window_cpu_ms": round(1000 * time.process_time()),
        }
        try:
            happened |= _walk(guide, options)
        finally:
            guide.close()
    print(json.dumps(happened, indent=2))
    return 0 if all(value is not False for name, value in happened.items() if name != "exactly_right") else 1


def _walk(guide: Guide, options: argparse.Namespace) -> dict[str, Any]:
    happened: dict[str, Any] = {}
    guide.wait_ready()
    guide.picture("empty")
    if options.film is not None:
        guide.film_begins()
    with guide.watching("an answer"):
        long = guide.ask_example(options.example)
        guide.wait_words_of_device(long, 12)
    guide.picture("streaming")
    guide.wait_whole(long)
    if options.film is not None:
        guide.film_ends(options.film)
    report = long.report
    happened["prompt_tokens"] = report.prompt_tokens if report else 0
    happened["hand_over"] = bool(report and report.handover_index)
    happened["exactly_right"] = "scripted" if options.scripted else guide.right(options.example, long)
    guide.picture("timeline")
    with guide.watching("a change of looks"):
        guide.change_looks()
    with guide.watching("a comparison"):
        guide.compare(long)
    guide.picture("comparison")
    happened["compared"] = guide.leave_comparison()
    with guide.watching("settings"):
        guide.settings_page(1)
    guide.picture("settings")
    guide.close_dialogs()
    unplugged = guide.ask_and_unplug(options.example, after=3)
    happened["went_on_unplugged"] = unplugged.state == "whole" and bool(unplugged.answer.notices)
    guide.picture("unplugged")
    guide.plug_in()
    killed = guide.ask_and_kill_cloud(options.example, after=3)
    happened["killed_after_tokens"] = killed.report.cloud_tokens if killed.report else 0
    happened["finished_without_the_cloud"] = killed.state == "whole" and bool(killed.answer.notices)
    guide.picture("cloud-lost")
    with guide.watching("opening from the history"):
        again = guide.reopen(killed)
    happened["reopened"] = again.text == killed.text and again.report == killed.report
    guide.picture("reopened")
    failed = guide.ask_nobody()
    happened["failure_says_what_to_do"] = failed.answer.problem is not None
    guide.picture("error")
    happened["longest_turn_of_the_screens_thread_ms"] = guide.longest_ms
    return happened


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(width), int(height)


def _unix() -> bool:
    return sys.platform not in ("win32", "darwin")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demos.chat.tour", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--out", type=Path, default=Path("out/chat"), metavar="DIR", help="pictures (%(default)s)")
    parser.add_argument("--size", type=_size, default=(1024, 640), metavar="WxH", help="of the window (1024x640)")
    parser.add_argument("--scale", type=int, default=1, help="2 is a display of 200%% (%(default)s)")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--film", type=Path, metavar="FILE.webp", help="a short recording of the first answer")
    parser.add_argument("--example", type=int, choices=(0, 1, 2), default=1, help="which to ask (%(default)s)")
    parser.add_argument("--scripted", action="store_true", help="a scripted client in the place of models and a cloud")
    return parser


if __name__ == "__main__":
    sys.exit(main())
