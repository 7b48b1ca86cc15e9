"""The state machine without its pacing: what an answer does to the cloud and to the device, for a fifth of the work.

Pacing shows in the cloud only where the speed controller asks for more grant. It never shows a token sooner than its
preferred pace while the cloud leads, so with a grant of k tokens, the first of which came at s₀, what is in hand lasts
until s₀ + k·pace at least. While the device is forecast to be ready by then, nothing is asked for, and leaving the
pacing out changes neither side. Where it is not, `look` says so, and the answer must be played with its pacing.

A forecast only gets worse while nothing happens: a pass takes longer than believed, a refinement does not come. So it
is enough to look at the forecast as it will be at the end of the pass under way, which a simulation knows. Where it
would not be good then, the outline looks ahead as far as it would, and wakes up then to look again.
"""

from __future__ import annotations

from device_sdk.generation.cloud_track import Open
from device_sdk.generation.commands import Command
from device_sdk.generation.device_track import Busy
from device_sdk.generation.inputs import CloudTokens, Input
from device_sdk.generation.machine import CLOSING_GRACE, GenerationMachine
from device_sdk.generation.output import Piece
from device_sdk.report import Source

#: Seconds to look ahead, the first that is safe, where the end of the pass is not; where none is, the answer must be
#: played with its pacing.
AHEAD = (0.32, 0.08, 0.02, 0.005)


class Outline(GenerationMachine):
    """As the machine, but shows nothing, makes no text, and tells the cloud nothing of its progress. Ask `look` after
    each input."""

    _looks = True
    _look_again: float | None = None

    def handle(self, event: Input, now: float) -> list[Command]:
        # A token more of those granted changes no forecast: what is in hand and what is still to come remain the same.
        self._looks = not (isinstance(event, CloudTokens) and self._context)
        return super().handle(event, now)

    def wakeup(self) -> float | None:
        if self.done or self._ending is not None:
            return super().wakeup()
        # As the machine's, where nothing waits to be shown or told.
        earliest, device = self._look_again, self.device.state
        times = self.cloud.deadline(), device.since + self.patience.device_pass if isinstance(device, Busy) else None
        for time in times:
            if time is not None and (earliest is None or time < earliest):
                earliest = time
        return earliest

    def _append(self, token: int | None, data: bytes, source: Source, now: float, tokens: int = 1) -> None:
        self.output.pieces.append(Piece(token, "", source))
        self.showing.arrivals.append(now)
        if self._room <= 0:
            self._end("length", now)

    def _advance(self, now: float) -> None:
        if self._ending is None:
            self._keep_a_side_working(now)
        if self._ending is None:
            self._step_device(now)
            # Without pacing, only a refinement that does not come as expected asks for more.
            if self._looks and self.request.refine is not None:
                self._extend(now)
        if self._ending is None:
            return
        if isinstance(self.cloud.state, Open) and self._ending != "failed" and now < self._ended_at + CLOSING_GRACE:
            return
        self._finish(self._ending)

    def look(self, now: float, pass_ends: float | None) -> bool:
        """Whether pacing will change nothing until the next input or tick, if the pass under way ends then."""
        if not self._looks:
            return True
        self._look_again = None
        cloud, arrivals = self.cloud.state, self.showing.arrivals
        if not isinstance(cloud, Open) or cloud.stopping or not arrivals or self._device_leads or self.done:
            return True
        if not self.sides.hand_over or not self.device.alive or cloud.base + cloud.grant >= self.split.max_grant:
            return True
        lasts_until = arrivals[0] + (cloud.base + cloud.grant) * self.split.pace.pace
        if pass_ends is not None and self._ready_by(lasts_until, pass_ends):
            return True
        for ahead in AHEAD:
            if self._ready_by(lasts_until, now + ahead):
                self._look_again = now + ahead
                return True
        return False

    def _ready_by(self, time: float, then: float) -> bool:
        """Whether the device, if nothing happens until `then`, will still be forecast to be ready by `time`."""
        ready_in = self._bridge.ready_in(self._context, then)
        return ready_in is None or then + ready_in <= time
