"""What the user sees: the output, when each piece of it came, and when it is shown. Pure."""

from __future__ import annotations

import itertools

from device_sdk.generation.commands import Show
from device_sdk.generation.output import Output
from device_sdk.report import Source
from speed_controller.controller import SpeedController
from speed_controller.settings import PaceSettings


class Showing:
    """Begins when the generation is submitted. Times are those of the generation."""

    def __init__(self, output: Output, pace: PaceSettings, now: float) -> None:
        self.output = output
        self.begun_at = now
        self.controller = SpeedController(pace, submitted=now)
        #: When piece i came, and when it was shown.
        self.arrivals: list[float] = []
        self.releases: list[float] = []

    @property
    def shown(self) -> int:
        return len(self.releases)

    @property
    def all_shown(self) -> bool:
        return self.shown == len(self.output)

    def append(self, token: int | None, data: bytes, source: Source, now: float, tokens: int = 1) -> None:
        self.output.append(token, data, source, tokens)
        self.arrivals.append(now)
        if not self.output.pieces[-1].hidden:
            self.controller.arrived(now, 1)

    def due(self, now: float, *, everything: bool) -> list[Show]:
        """What is to be shown now; `everything` holds nothing back. Thinking is not paced: it comes as it comes, behind
        what is to be shown before it."""
        left = len(self.output) if everything else self.controller.due(now)
        count = 0
        for piece in itertools.islice(self.output.pieces, self.shown, None):
            if not piece.hidden:
                left -= 1
            if left < 0:
                break
            count += 1
        pieces = self.output.pieces[self.shown : self.shown + count]
        shows = [
            Show(index, piece.token, piece.text, piece.source, piece.thought, piece.hidden)
            for index, piece in enumerate(pieces, self.shown)
        ]
        self.releases += [now] * count
        return shows

    @property
    def visible_releases(self) -> list[float]:
        """When each piece of the answer itself was shown."""
        shown = zip(self.output.pieces, self.releases, strict=False)
        return [time for piece, time in shown if not piece.hidden]

    def end(self, now: float) -> list[Show]:
        """Nothing more will be appended. The text held back belongs to the last piece, which may be shown already."""
        before = self.output.pieces[-1] if self.output.pieces else None
        self.output.end()
        if before is not None and before.hidden and not self.output.pieces[-1].hidden:
            self.controller.arrived(now, 1)
        self.controller.finished(now)
        last = self.output.pieces[-1] if self.output.pieces else None
        if last is None or before is None or not self.all_shown or last == before:
            return []
        text, thought = last.text[len(before.text) :], last.thought[len(before.thought) :]
        return [Show(self.shown - 1, None, text, last.source, thought, last.hidden)]
