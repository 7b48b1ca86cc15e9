"""One answer as a Chrome trace: what the device, the cloud and the user's screen did, and when.

The format is the Trace Event Format's JSON object (Google, "Trace Event Format"): complete events (`X`) and instants
(`i`), times in microseconds from the request. chrome://tracing and Perfetto read it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from device_sdk.report import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_sdk.testing.simulation import Simulation
    from planner.core import Request
    from planner.simulator.cloud.job import Job
    from planner.simulator.outcome import Outcome

#: Lanes of the trace, from the top.
SCREEN, DEVICE, CLOUD, NETWORK = 1, 2, 3, 4


@dataclass(slots=True)
class Tracer:
    """Of the answer `index`. Policies tell it what happened; other answers' are ignored by their caller."""

    index: int
    events: list[dict[str, Any]] = field(default_factory=list)
    _began: float = 0.0

    def split(self, request: Request, simulation: Simulation) -> None:
        """An answer that was played by the state machine."""
        self._began = request.arrival
        machine = simulation.machine
        for began, ended, step in simulation.passes:
            last = "decode" if len(step.tokens) == 1 and step.sample_at is not None else "prefill"
            self._span(DEVICE, f"{last} {len(step.tokens)}", began, ended, {"after": step.keep})
        for arrival, piece in zip(machine.showing.arrivals, machine.output.pieces, strict=False):
            if piece.source is Source.CLOUD:
                self._instant(NETWORK, "token arrives", arrival, {})
        self._shown([(at, str(piece.source.value)) for at, piece in zip(
            machine.showing.releases, machine.output.pieces, strict=False
        )])  # fmt: skip
        for index in simulation.handovers:
            self._instant(SCREEN, f"hand-over at token {index}", machine.showing.arrivals[index], {})
        for at, allowed in machine.cloud.grants:
            self._instant(NETWORK, f"grant {allowed}", at, {})

    def cloud(self, request: Request, jobs: Sequence[Job]) -> None:
        """What the cloud did for it."""
        self._began = request.arrival
        for job in jobs:
            if not job.given:
                self._instant(CLOUD, "rejected", job.arrived, {})
                continue
            self._span(CLOUD, f"queue and prefill {job.prompt}", job.arrived, job.first_at, {"cached": job.cached})
            before = job.first_at
            for number, at in enumerate(job.times, start=1):
                self._span(CLOUD, f"decode {number}", before, at, {})
                before = at

    def outcome(self, request: Request, outcome: Outcome) -> None:
        """What every policy can say: how long the first token took, and the rest."""
        self._began = request.arrival
        self._span(SCREEN, "waiting for the first token", request.arrival, request.arrival + outcome.ttft, {})
        if outcome.shown_seconds == outcome.shown_seconds:
            first = request.arrival + outcome.ttft
            self._span(SCREEN, "answer", first, first + outcome.shown_seconds, {"tokens": outcome.output_tokens})

    def text(self) -> str:
        """The file."""
        names = {SCREEN: "screen", DEVICE: "device", CLOUD: "cloud", NETWORK: "network"}
        lanes = [
            {"ph": "M", "pid": 1, "tid": lane, "name": "thread_name", "args": {"name": name}}
            for lane, name in names.items()
        ]
        return json.dumps({"traceEvents": [*lanes, *self.events], "displayTimeUnit": "ms"})

    def _shown(self, tokens: list[tuple[float, str]]) -> None:
        for number, (at, source) in enumerate(tokens):
            self._instant(SCREEN, f"token {number} ({source})", at, {})

    def _span(self, lane: int, name: str, began: float, ended: float, more: dict[str, Any]) -> None:
        event = {"ph": "X", "name": name, "pid": 1, "tid": lane, "ts": self._us(began), "args": more}
        self.events.append({**event, "dur": 1e6 * (ended - began)})

    def _instant(self, lane: int, name: str, at: float, more: dict[str, Any]) -> None:
        self.events.append({"ph": "i", "s": "t", "name": name, "pid": 1, "tid": lane, "ts": self._us(at), "args": more})

    def _us(self, at: float) -> float:
        return 1e6 * (at - self._began)
