"""`pd-demo`: one answer from a cloud and a device, side by side with either alone."""

from __future__ import annotations

import asyncio
import json
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
        raise UsageError(f"the package {error.name!r} is missing; install pd-device[demos]") from None

    hardware = hardware_module.choose(options)
    questions = choose_questions(options)
    screen = make_screen(quiet=options.json)
    for line in hardware.lines():
        screen.say(line)
    trios = await run_demo(options, hardware, questions, screen)
    screen.results(trios)
    footnote = " · ".join(hardware.lines())
    for number, trio in enumerate(trios, start=1):
        draw_timeline(trio, footnote, options.out / f"timeline-{number}.png")
    result = as_json(hardware_module.machine(), hardware.as_json(), [run for trio in trios for run in trio])
    text = json.dumps(result, ensure_ascii=False, indent=2)
    (options.out / "side-by-side.json").write_text(text + "\n", encoding="utf-8")
    screen.say(f"\ntimelines: {options.out}/timeline-*.png, figures: {options.out}/side-by-side.json")
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
