"""How long prefill and decode take, from how long they took. Pure: durations are passed in, in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloud_service.pool.roles import Phase

#: The share of the newest generation in an average.
_NEWEST = 0.1
#: Fewer generations than this tell nothing.
ENOUGH = 16


@dataclass(slots=True)
class _Average:
    seconds: float = 0.0
    count: int = 0

    def note(self, seconds: float) -> None:
        self.count += 1
        # The plain mean of the first ones, so that the very first does not weigh for long.
        self.seconds += max(_NEWEST, 1 / self.count) * (seconds - self.seconds)


@dataclass(slots=True)
class Phases:
    """`places`: generations that one instance decodes at a time. Prompts share an engine's passes by tokens, so that
    one of them at a time, each with its share of engine time, is the same as several."""

    places: int
    _prefill: _Average = field(default_factory=_Average)
    _decode: _Average = field(default_factory=_Average)

    def prefilled(self, engine_s: float) -> None:
        """A prompt took so much of its engine's time."""
        self._prefill.note(engine_s)

    def decoded(self, seconds: float) -> None:
        """An answer that was taken over took so long from then to its last token."""
        self._decode.note(seconds)

    @property
    def measured(self) -> tuple[Phase, Phase] | None:
        """Prefill and decode; None where too little was seen."""
        prefill, decode = self._prefill, self._decode
        if min(prefill.count, decode.count) < ENOUGH or not (prefill.seconds > 0 and decode.seconds > 0):
            return None
        return Phase(1, prefill.seconds), Phase(self.places, decode.seconds)
