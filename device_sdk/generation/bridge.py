"""The bridge from the cloud's first token to the device's first own one: how long it must be, and what grant makes it.

Pure. Looks at the tracks of both sides and of the refinement; changes none of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from device_sdk.generation.cloud_track import CloudTrack, Open
from device_sdk.generation.device_track import Delayed, DeviceTrack
from device_sdk.generation.grants import MARGIN_SHARE, initial_grant, least_grant, with_margin
from device_sdk.generation.output import Output
from device_sdk.generation.refinement import RefinementTrack
from device_sdk.generation.showing import Showing
from speed_controller.split import SplitSettings

#: Tokens more at a time, so that a forecast that creeps does not ask at each token.
LEAST_EXTENSION = 3

#: Seconds to wait for a refinement while nothing is known of the device's speed.
UNKNOWN_PATIENCE = 1.0

#: A grant is asked anew where this much more of the prompt is left to the device than it was asked for: its margin.
MORE_PROMPT = 1 + MARGIN_SHARE


class Bridge:
    def __init__(
        self, split: SplitSettings, device: DeviceTrack, cloud: CloudTrack, refinement: RefinementTrack
    ) -> None:
        self._split = split
        self._device = device
        self._cloud = cloud
        self._refinement = refinement
        #: Prompt tokens that the grant was asked for.
        self._granted_for = 0

    def ready_in(self, context: Sequence[int], now: float) -> float | None:
        """Seconds until the device's first own token, after all that the cloud still sends; None: not known."""
        return self._device.ready_in(self._prompt_left(now), context, self._cloud_left, now)

    @property
    def patience(self) -> float | None:
        """How long the device waits for a refinement that it cannot do without, in seconds; None: to its end.

        What earlier turns left out could be read instead. Waiting no longer than that takes costs at most twice the
        best that could have been done (the ski-rental bound).
        """
        prompt = self._device.prompt
        if prompt.room is not None and len(prompt) > prompt.room:
            return None
        seconds = self._device.forecast.ready_in(prompt.left_out)
        return UNKNOWN_PATIENCE if seconds is None else seconds

    def device_begins(self, now: float) -> bool:
        """Whether a device that left the beginning to the cloud begins: its time has come, the cloud has said what
        matters of the prompt (or its first token, where it does not say that), or no cloud is at work."""
        cloud = self._cloud.state
        if not isinstance(self._device.state, Delayed):
            return False
        if self._device.wait_left(now) <= 0 or not isinstance(cloud, Open) or cloud.stopping:
            return True
        answers = cloud.received > 0 and self._refinement.due_in(now) is None
        return answers or self._refinement.stages > 0

    def first_grant(self, now: float) -> int:
        """What to ask of the cloud at first."""
        self._granted_for = self._prompt_left(now)
        grant = self._initial_grant(self._granted_for, now)
        if grant == 0 and self._granted_for < self._device.prompt.left:
            # A refinement would have the device there before the cloud, and without the cloud there is none.
            return min(self._initial_grant(self._device.prompt.left, now), with_margin(self._split, 1))
        return grant

    def _initial_grant(self, left: int, now: float) -> int:
        # The prompt, and for what is received one pass at least.
        tokens, prompt = self._device.padded(left) + self._device.block, len(self._device.prompt)
        wait = self._device.wait_left(now)
        return initial_grant(self._split, tokens, prompt, self._device.forecast, self._cloud.forecast, wait)

    def forecast(self, showing: Showing, ready_in: float | None, now: float) -> None:
        """Tell the speed controller what to expect."""
        if self._device.alive and ready_in is not None:
            showing.controller.expect_device(now, now + ready_in, self._device.forecast.tpot)
        cloud = self._cloud.state
        more_to_come = isinstance(cloud, Open) and not cloud.stopping
        showing.controller.cloud_state(
            now,
            remaining=self._cloud_left,
            tpot=self._cloud.forecast.tpot if more_to_come else None,
            round_trip=self._cloud.forecast.round_trip or 0.0,
        )

    def thinking_to_give_back(self, attempt: Open, output: Output) -> int:
        """A grant is so many tokens of the answer, as the user sees it: what was spent on thinking is added to it, some
        tokens at a time, or before it runs out."""
        owed = output.hidden(attempt.base) - attempt.given_back
        return owed if owed >= LEAST_EXTENSION or (owed and attempt.remaining <= LEAST_EXTENSION) else 0

    def raised_grant(self, attempt: Open, showing: Showing, now: float) -> int:
        """The attempt's grant as it should be: more where even the slowest pace would run dry before the device is
        ready, or where more of the prompt is left to the device than the grant was asked for."""
        more = showing.controller.extension(now)
        wanted = attempt.grant + max(more, LEAST_EXTENSION) if more > 0 else attempt.grant
        limit = self._split.max_grant + attempt.given_back - attempt.base
        return max(min(max(wanted, self._grant_for_more_prompt(attempt, showing, now)), limit), attempt.grant)

    def _grant_for_more_prompt(self, attempt: Open, showing: Showing, now: float) -> int:
        """For a refinement that keeps more than expected, or does not come; 0 where the grant is large enough."""
        prompt_left = self._prompt_left(now)
        tokens = self._device.prompt.fed + prompt_left
        if self._split.grant is not None or tokens <= MORE_PROMPT * self._granted_for:
            return 0
        self._granted_for = tokens
        ready_in = self._device.ready_in(prompt_left, (), self._device.block, now)
        if ready_in is None:
            return 0
        first = showing.arrivals[0] if showing.arrivals else now
        ready, ttft = now + ready_in - showing.begun_at, first - showing.begun_at
        needed = least_grant(self._split, ready, ttft, self._device.forecast)
        return with_margin(self._split, needed) - attempt.base if needed > attempt.base + attempt.grant else 0

    def _prompt_left(self, now: float) -> int:
        """Prompt tokens that the device will still take: fewer than are ahead, where a refinement is on its way."""
        prompt = self._device.prompt
        if prompt.gaps:
            # The refinement may want any of them back, and then all that it keeps behind it is read again.
            return max(prompt.left, math.ceil(self._refinement.share * len(prompt)))
        due_in = self._refinement.due_in(now)
        reading = None if due_in is None else self._device.reading_before(due_in, now)
        return self._refinement.expected(prompt.left, prompt.protected_left, reading, self._device.forecast)

    @property
    def _cloud_left(self) -> int:
        return self._cloud.state.remaining if isinstance(self._cloud.state, Open) else 0
