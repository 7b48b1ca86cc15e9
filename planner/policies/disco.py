"""DiSCo (Sun et al., 2025, arXiv 2502.11417): device and server race for the first token, then the answer moves to the
cheaper side once the reader's buffer covers the move.

- *Device-constrained* (`disco-d`): the server starts at once, the device w(l) later, unless the server was there first.
  Of all prompt tokens the device may read the share `budget`. Part of it guards the tail: the longest wait is the
  server's TTFT that only one request in twenty exceeds; the rest lets the shortest prompts start at once.
- *Server-constrained* (`disco-s`): prompts shorter than `threshold` are the device's alone; for longer ones both start.
  The server may read the share `budget` of all prompt tokens.
- *Moving* from the winner to the cheaper side: once B = r_c·t_m tokens are in hand and not read yet (r_c the reading
  rate, t_m the time that the other side needs to read prompt and answer so far), the winner stops and the other begins
  to read.

The paper's calibration needs the server's TTFT beforehand: as there, from a history, here a run of `in-cloud` on the
same workload and cloud. Where the paper's text leaves a choice, it is the one that is better for DiSCo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from planner.policies.asking import Asked
from planner.simulator.outcome import Outcome, paced
from planner.wire import TOKEN_BYTES
from speed_controller.delayed_start import DelayedStart

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planner.core import Request
    from planner.simulator.world import World


@dataclass(frozen=True, slots=True)
class Disco:
    """`threshold`: prompt tokens. `longest_wait`: seconds; used by `device`."""

    constrained: Literal["device", "server"]
    threshold: int
    longest_wait: float = 0.0

    @property
    def name(self) -> str:
        return "disco-d" if self.constrained == "device" else "disco-s"

    def begin(self, world: World, index: int, request: Request) -> None:
        race = _Race(world, index, request, self.constrained)
        short = request.prompt_tokens < self.threshold
        if self.constrained == "server":
            race.start_device(0.0)
            if not short:
                race.ask()
        else:
            race.ask()
            race.start_device(0.0 if short else self.longest_wait)


def calibrate(
    constrained: Literal["device", "server"],
    prompts: Sequence[int],
    server_ttft: Sequence[float],
    budget: float = 0.5,
) -> Disco:
    """The policy that keeps the constrained side's share of prompt tokens within `budget`. `prompts` and `server_ttft`:
    a history, in no particular order."""
    if constrained == "server":
        lengths = np.sort(np.asarray(prompts))
        tokens = np.cumsum(lengths) / lengths.sum()
        # Above the threshold lies a share of the tokens that is within the budget.
        index = int(np.searchsorted(tokens, 1 - budget, side="left"))
        return Disco("server", int(lengths[min(index, len(lengths) - 1)]) + 1)
    start = DelayedStart.calibrated(prompts, server_ttft, budget)
    return Disco("device", start.threshold, start.longest_wait)


class _Race:
    """One answer. `arrivals` are the tokens' at the device; once `_known`, all are there, some in the future."""

    def __init__(self, world: World, index: int, request: Request, constrained: Literal["device", "server"]) -> None:
        self.world, self.index, self.request, self.constrained = world, index, request, constrained
        self.device = world.device(index, request.output_tokens)
        self.noise = world.noise(index)
        self.network = world.network(index)
        self.asked: list[Asked] = []
        self.source: Literal["device", "server"] | None = None
        self.arrivals: list[float] = []
        self.outcome = Outcome(request.arrival, request.prompt_tokens, request.output_tokens)
        self._device_from: float | None = None
        self._known = self._recorded = False

    # --- the server --------------------------------------------------------------------------------------------------

    def ask(self, so_far: int = 0) -> None:
        number = len(self.asked)
        self.asked.append(
            Asked(
                self.world,
                self.index,
                self.request,
                grant=self.request.output_tokens - so_far + 1,
                ended=self._server_ended,
                heard=lambda _, there: self.world.loop.at(there, lambda: self._token(number)),
                so_far=so_far,
                watched=self._one_by_one,
                network=self.network,
            )
        )

    @property
    def _one_by_one(self) -> bool:
        """Whether each of the server's tokens can end its part. Where only the first one decides anything, the others
        come together, with the server's end."""
        return self.constrained == "server"

    def _token(self, number: int) -> None:
        """A token of the server's arrives: each, or the first one."""
        now = self.world.loop.now
        if self.source is None:
            self.source = "server"
            if self._device_from is not None:  # its race is lost; what it read was for nothing
                self.outcome.device_prefill_seconds += now - self._device_from
        if self._known or self.source == "device" or number < len(self.asked) - 1:
            return  # on its way when the answer moved
        self.arrivals.append(now)
        if len(self.arrivals) == self.request.output_tokens:
            self._all_known()
        elif self.constrained == "server":
            self._move_to_device(now)

    def _server_ended(self, asked: Asked) -> None:
        if asked.reason == "rejected" and not self._known:
            self._server_refused()
        elif not self._one_by_one and asked.job.delivered > 1:
            number, later = self.asked.index(asked), asked.job.times[: asked.job.delivered - 1]
            there = self.network.down.arrivals(later, TOKEN_BYTES, self.noise)
            self.world.loop.at(float(there[-1]), lambda: self._later_tokens(number, there.tolist()))
        self._all_known(self._known)

    def _later_tokens(self, number: int, there: list[float]) -> None:
        """All of the server's tokens but the first are there by now."""
        if self._known or self.source == "device" or number < len(self.asked) - 1:
            return
        self.arrivals += there
        self._all_known()

    def _server_refused(self) -> None:
        if self.source is None:
            self.start_device(0.0)
        elif self.source == "server":  # the answer was to move there: the device goes on
            self._device_goes_on(self.world.loop.now)

    # --- the device --------------------------------------------------------------------------------------------------

    def start_device(self, wait: float) -> None:
        """Let it read the prompt `wait` seconds from now, unless the server is there first."""

        def start() -> None:
            if self.source is None and self._device_from is None:
                self._device_from = self.world.loop.now
                seconds = self.device.prefill(0, self.request.prompt_tokens)
                self.world.loop.at(self._device_from + seconds, lambda: self._device_is_there(seconds))

        self.world.loop.at(self.world.loop.now + wait, start)

    def _device_is_there(self, prefill: float) -> None:
        if self.source is not None:
            return
        self.source = "device"
        self.outcome.device_prefill_seconds += prefill
        now = self.world.loop.now
        if self.asked and not self.asked[-1].over:
            self.asked[-1].stop(now)
        made = now + self.device.decode(self.request.prompt_tokens, self.request.output_tokens, self.noise)
        arrivals = np.concatenate(([now], made[:-1]))
        moved = self._tokens_before_moving(arrivals) if self.constrained == "device" else None
        if moved is None:
            self.arrivals = list(arrivals)
            self.outcome.device_decode_seconds += float(made[-1] - now)
            self._all_known()
            return
        self.arrivals = list(arrivals[:moved])
        self.outcome.device_decode_seconds += float(arrivals[moved - 1] - now)
        self.world.loop.at(self.arrivals[-1], lambda: self._go_on_in_cloud(moved))

    def _device_goes_on(self, now: float) -> None:
        """All that is left, with what was made so far in its cache."""
        context = self.request.prompt_tokens + len(self.arrivals)
        made = now + self.device.decode(context, self.request.output_tokens - len(self.arrivals), self.noise)
        self.arrivals += [now, *made[:-1]]
        self.outcome.device_decode_seconds += float(made[-1] - now)
        self._all_known()

    # --- moving ------------------------------------------------------------------------------------------------------

    def _move_to_device(self, now: float) -> None:
        """From server to device, once what is in hand covers the device's reading of prompt and answer."""
        count, pace = len(self.arrivals), self.world.setup.pace.pace
        context = self.request.prompt_tokens + count
        read = min(count, (now - self.arrivals[0]) / pace + 1)
        if count - read < context / self.device.times.rate(self.request.prompt_tokens) / pace:
            return
        self.asked[-1].stop(now)
        seconds = self.device.prefill(0, context)
        self.outcome.device_prefill_seconds += seconds
        self._device_goes_on(now + seconds)

    def _tokens_before_moving(self, arrivals: NDArray[np.float64]) -> int | None:
        """From device to server: after how many tokens enough is in hand for the server's TTFT; None: never."""
        setup = self.world.setup
        pace, made = setup.pace.pace, np.arange(len(arrivals)) + 1
        needed = setup.link.rtt_ms / 1000 + setup.cloud.hardware.prompt_ms(self.request.prompt_tokens) / 1000
        read = np.minimum(made, (arrivals - arrivals[0]) / pace + 1)
        enough = np.flatnonzero((made - read) * pace >= needed)
        return int(enough[0]) + 1 if len(enough) and enough[0] + 1 < len(arrivals) else None

    def _go_on_in_cloud(self, so_far: int) -> None:
        self.source = "server"
        self.ask(so_far)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _all_known(self, known: bool = True) -> None:
        """Record, once every token's arrival is known and the server is done with its part."""
        self._known = known
        if not known or self._recorded or not all(asked.over for asked in self.asked):
            return
        self._recorded = True
        outcome, pace = self.outcome, self.world.setup.pace
        for asked in self.asked:
            asked.add_to(outcome)
        outcome.bytes_up, outcome.bytes_down = self.network.up.bytes, self.network.down.bytes
        outcome.ttft = self.arrivals[0] - self.request.arrival
        outcome.shown(paced(np.asarray(self.arrivals), pace.pace), pace)
        self.world.record(self.index, self.request, outcome, [asked.job for asked in self.asked])
