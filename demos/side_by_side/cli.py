"""`pd-demo`: one answer from a cloud and a device, side by side with either alone."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from typing import TYPE_CHECKING

from demos.side_by_side.errors import DemoError, UsageError
from demos.side_by_side.options import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demos.side_by_side.options import Options

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    options = parse(arguments)
    # What the demo has to say it says itself; a warning in between would tear the picture on the terminal.
    logging.getLogger("model_runtime").addHandler(logging.NullHandler())
    logging.getLogger("device_sdk").addHandler(logging.NullHandler())
    try:
        return asyncio.run(_main(options))
    except DemoError as error:
        return _end(str(error), error.exit_code)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _end("interrupted", _INTERRUPTED)


async def _main(options: Options) -> int:
    # A SIGTERM must end the cloud process as Ctrl-C does, not leave it behind.
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        from demos.side_by_side import hardware as hardware_module
        from demos.side_by_side.questions import choose as choose_questions
        from demos.side_by_side.runner import run_demo
        from demos.side_by_side.runs import as_json
        from demos.side_by_side.screen import make_screen
        from demos.side_by_side.timeline import draw_timeline
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise UsageError(f"the package {package!r} is missing; install pd-device[demos]") from None

    hardware = hardware_module.choose(options)
    questions = choose_questions(options)
    screen = make_screen(quiet=options.json)
    for line in hardware.lines():
        screen.say(line)
    screen.legend()
    outcome = await run_demo(options, hardware, questions, screen)
    screen.results(outcome.trios)
    footnote = " · ".join(" ".join(line.split()) for line in hardware.lines())
    for number, trio in enumerate(outcome.trios, start=1):
        draw_timeline(trio, footnote, options.out / f"timeline-{number}.png")
    runs = [run for trio in outcome.trios for run in trio]
    text = json.dumps(
        as_json(hardware_module.machine(), hardware.as_json(outcome.slower), runs), ensure_ascii=False, indent=2
    )
    (options.out / "side-by-side.json").write_text(text + "\n", encoding="utf-8")
    screen.say(f"\ntimelines: {options.out}/timeline-*.png, figures: {options.out}/side-by-side.json")
    for line in outcome.slower.lines():
        screen.say(line)
    for line in hardware.sources():
        screen.say(f"source of {line}")
    if options.json:
        print(text)
    return 0


def _end(message: str, code: int) -> int:
    print(f"pd-demo: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
