"""What a person sees while the demo runs: answers as they stream in, coloured by who wrote them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from demos.side_by_side.palette import COLOURS, FAINT, TITLES, seconds
from demos.side_by_side.table import results_table, savings_lines, verdict
from device_sdk.report import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from demos.side_by_side.questions import Question
    from demos.side_by_side.runs import Run, Trio
    from device_sdk.events import Token
    from device_sdk.settings import Mode


class View(Protocol):
    """One answer on its way."""

    def token(self, token: Token) -> None: ...

    def note(self, text: str) -> None: ...

    def done(self, run: Run) -> None: ...


class Screen(Protocol):
    """Where the demo shows itself."""

    def say(self, text: str = "") -> None: ...

    def legend(self) -> None: ...

    def question(self, number: int, total: int, question: Question) -> None: ...

    def answer(self, mode: Mode) -> AbstractContextManager[View]: ...

    def results(self, trios: Sequence[Trio]) -> None: ...


def make_screen(*, quiet: bool) -> Screen:
    """`quiet`: nothing on stdout, one line for each answer on stderr."""
    if quiet:
        return QuietScreen(Console(stderr=True, highlight=False))
    console = Console(highlight=False)
    return LiveScreen(console) if console.is_terminal and not console.no_color else PlainScreen(console)


def summary(run: Run) -> str:
    report = run.answer.report
    parts = [
        f"first token {seconds(report.ttft_ms)}",
        f"{seconds(report.tpot_mean_ms)} per token",
        f"largest gap {seconds(report.max_gap_ms)}",
        f"{report.cloud_tokens} + {report.device_tokens} tokens",
    ]
    if report.refinement_ms is not None:
        parts.append(f"{100 * report.prompt_kept:.0f}% of the prompt read")
    if run.correct is not None:
        parts.append(f"correct: {verdict(run.correct)}")
    return " · ".join(parts)


class PlainScreen:
    """For pipes, files and terminals without colour: text as it comes, the source named where it changes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str = "") -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def legend(self) -> None:
        """Sources are named in the text."""

    def question(self, number: int, total: int, question: Question) -> None:
        words = len(question.document.split())
        about = f", about {words:,} words of text" if words else ""
        self.say(f"\n--- question {number} of {total} ({question.kind}{about}) ---\n{question.text}")

    @contextmanager
    def answer(self, mode: Mode) -> Iterator[View]:
        self.say(f"\n{TITLES[mode]}:")
        yield _PlainView(self._console)

    def results(self, trios: Sequence[Trio]) -> None:
        self.say()
        self._console.print(results_table(trios), soft_wrap=True)
        self.say("\nWhat the split saved")
        for line in savings_lines(trios):
            self.say(line)


class _PlainView:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._source: Source | None = None

    def token(self, token: Token) -> None:
        if token.source is not self._source:
            self._source = token.source
            self._write(f"[{token.source.value}] " if token.index == 0 else f" [{token.source.value}] ")
        self._write(token.text)

    def note(self, text: str) -> None:
        self._write(f" [{text}] ")

    def done(self, run: Run) -> None:
        self._write(f"\n({summary(run)})\n")

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


class LiveScreen(PlainScreen):
    """For a terminal with colours: one panel for each answer, growing as it streams."""

    def legend(self) -> None:
        names = {Source.CLOUD: "from the cloud", Source.DEVICE: "from the device"}
        self._console.print(Text("   ").join(Text(f"■ {names[source]}", colour) for source, colour in COLOURS.items()))

    def question(self, number: int, total: int, question: Question) -> None:
        words = len(question.document.split())
        self._console.print()
        self._console.rule(f"[bold]question {number} of {total}", style=FAINT, align="left")
        if words:
            start = " / ".join(question.document.splitlines()[:2])
            self._console.print(Text(f"{start} … ({words:,} words)", style="dim"), overflow="ellipsis", no_wrap=True)
        self._console.print(Text(question.text, style="bold"))

    @contextmanager
    def answer(self, mode: Mode) -> Iterator[View]:
        panel = _LivePanel(TITLES[mode])
        # Its own thread draws, a few times in a second: tokens are shown at the pace of the answer, undisturbed.
        with Live(panel, console=self._console, refresh_per_second=12, transient=True):
            yield panel
        self._console.print(panel)

    def results(self, trios: Sequence[Trio]) -> None:
        self._console.print()
        self._console.rule("[bold]side by side", style=FAINT, align="left")
        self._console.print(results_table(trios))
        self._console.print()
        self._console.print(Text("What the split saved", style="bold"))
        for line in savings_lines(trios):
            self.say(line)


class _LivePanel:
    """What is drawn is made from lists that only grow, so that drawing needs no lock."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._started = time.monotonic()
        self._pieces: list[tuple[str, str]] = []
        self._notes: list[str] = []
        self._summary: str | None = None

    def token(self, token: Token) -> None:
        self._pieces.append((token.text, COLOURS[token.source]))

    def note(self, text: str) -> None:
        self._notes.append(text)

    def done(self, run: Run) -> None:
        self._summary = summary(run)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._pieces:
            body = Text.assemble(*self._pieces[:])
        else:
            body = Text(f"… {time.monotonic() - self._started:.1f} s", style="dim")
        for note in self._notes[:]:
            body.append(f"\n{note}", style="italic dim")
        height = options.max_height
        if self._summary is None:
            body = _last_lines(body, options.max_width - 4, max(height - 4, 3), console)
        yield Panel(
            body,
            title=f"[bold]{self._title}",
            title_align="left",
            subtitle=self._summary,
            subtitle_align="right",
            border_style=FAINT,
        )


def _last_lines(text: Text, width: int, count: int, console: Console) -> Text:
    """While an answer streams, its end stays in view on a small terminal."""
    lines = text.wrap(console, width)
    return Text("\n").join(lines[-count:])


class QuietScreen:
    """For `--json`: says on stderr what is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._question = ""

    def say(self, text: str = "") -> None:
        if text:
            self._console.print(text, markup=False, soft_wrap=True)

    def legend(self) -> None:
        """No text is shown."""

    def question(self, number: int, total: int, question: Question) -> None:
        self._question = f"question {number} of {total} ({question.kind})"

    @contextmanager
    def answer(self, mode: Mode) -> Iterator[View]:
        yield _QuietView(self._console, f"{self._question}, {TITLES[mode]}")

    def results(self, trios: Sequence[Trio]) -> None:
        """The caller prints them."""


class _QuietView:
    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title

    def token(self, token: Token) -> None:
        """Only whole answers are reported."""

    def note(self, text: str) -> None:
        self._console.print(f"{self._title}: {text}", markup=False, soft_wrap=True)

    def done(self, run: Run) -> None:
        self._console.print(f"{self._title}: {summary(run)}", markup=False, soft_wrap=True)
