"""The generation: whoever has the next token first supplies it; the speed controller says when it is shown.

Both sides run from the first instant that the mode allows. Losing one of them is no special case: the other is
already on its way, or is started. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from typing import assert_never

from device_sdk.generation.cloud_track import CloudTrack, Gone, GrantUsed, NotAsked, Open, Waiting
from device_sdk.generation.commands import (
    AnnounceHandOver,
    AskCloud,
    CancelStep,
    Command,
    Done,
    ExtendCloud,
    Notify,
    Show,
    StopCloud,
    TellProgress,
)
from device_sdk.generation.device_track import Busy, Dead, DeviceTrack, Ready, Resting
from device_sdk.generation.grants import initial_grant
from device_sdk.generation.inputs import (
    CancelRequested,
    CloudFinished,
    CloudLost,
    CloudRefused,
    CloudText,
    CloudTokens,
    DeviceFailed,
    Input,
    LinkUp,
    StepDone,
    Submitted,
    Tick,
)
from device_sdk.generation.output import Output
from device_sdk.generation.plan import Patience, Request, Sides, TokenSide, Use
from device_sdk.report import FinishReason, Source
from speed_controller.controller import SpeedController
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings

#: A catch-up step of at most this many tokens is the last one before the device takes over.
LAST_CATCH_UP = 4

#: Seconds before the first, second, … further attempt of an answer that only the cloud can finish.
RETRY_DELAYS = (0.0, 0.5, 2.0)

#: Tokens more at a time, so that a forecast that creeps does not ask at each token.
LEAST_EXTENSION = 8

#: Seconds that a whole answer waits for the cloud's closing word, which carries what it cost.
CLOSING_GRACE = 0.25


class IllegalInputError(Exception):
    """An input that cannot happen in this state: a defect of the driver, never of a peer."""


class GenerationMachine:
    """One answer. `handle` takes an input and the time (seconds, any origin, never going back) and returns commands.

    `Done` is the last command of the last non-empty list; afterwards `handle` returns nothing.
    """

    def __init__(
        self,
        request: Request,
        sides: Sides,
        split: SplitSettings,
        tokenizer: TokenSide | None,
        device: DeviceForecast,
        cloud: CloudForecast,
        patience: Patience | None = None,
        *,
        block: int = 1,
    ) -> None:
        self.request = request
        self.sides = sides
        self.split = split
        self.patience = patience or Patience()
        self.tokenizer = tokenizer
        self.output = Output(request.stop)
        self.device = DeviceTrack(request.prompt, device, split.chunk, block)
        self.cloud = CloudTrack(cloud, self.patience)
        self.arrivals: list[float] = []
        self.releases: list[float] = []
        self.notices: list[str] = []
        self.handover_index: int | None = None
        self.finish_reason: FinishReason | None = None
        self.submitted_at: float | None = None
        self.shown = 0
        self._controller: SpeedController | None = None
        self._commands: list[Command] = []
        self._ending: FinishReason | None = None
        self._ended_at = 0.0
        self._context: list[int] = []
        self._context_stale = False

    # --- the driver's side ---------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.finish_reason is not None

    @property
    def controller(self) -> SpeedController:
        if self._controller is None:
            raise IllegalInputError("the generation has not been submitted")
        return self._controller

    def handle(self, event: Input, now: float) -> list[Command]:
        if self.done:
            return []
        if isinstance(event, Submitted) != (self._controller is None):
            raise IllegalInputError(f"{type(event).__name__} in a generation that is {self._phase()}")
        match event:
            case Submitted(device_problem=problem):
                self._submit(problem, now)
            case StepDone():
                self._step_done(event, now)
            case DeviceFailed(message=message):
                self._device_failed(message, now)
            case LinkUp(round_trip=round_trip):
                self.cloud.forecast.observe_round_trip(round_trip)
            case CloudTokens():
                self._cloud_tokens(event, now)
            case CloudText():
                self._cloud_text(event, now)
            case CloudFinished():
                self._cloud_finished(event, now)
            case CloudRefused():
                self._cloud_refused(event, now)
            case CloudLost(attempt=attempt, message=message, retriable=retriable):
                if self.cloud.current(attempt):
                    self._cloud_gone(message, now, retry_in=0.0 if retriable else None)
            case CancelRequested():
                self._cancel()
            case Tick():
                self._check_deadlines(now)
            case _:
                assert_never(event)
        if not self.done:
            self._advance(now)
        commands, self._commands = self._commands, []
        return commands

    def wakeup(self) -> float | None:
        """When to send the next `Tick`, if nothing else happens before."""
        if self.done or self._controller is None:
            return None
        times = [self._controller.next_due()]
        if self._ending is not None and self.shown == len(self.output) and isinstance(self.cloud.state, Open):
            times.append(self._ended_at + CLOSING_GRACE)
        if self._ending is None:
            times.append(self.cloud.deadline())
            if isinstance(self.device.state, Busy):
                times.append(self.device.state.since + self.patience.device_pass)
            cloud = self.cloud.state
            if isinstance(cloud, Open) and cloud.told_at is not None and cloud.remaining > 0:
                times.append(cloud.told_at + self.patience.progress_every)
        return min((time for time in times if time is not None), default=None)

    # --- inputs --------------------------------------------------------------------------------------------------

    def _submit(self, device_problem: str | None, now: float) -> None:
        self.submitted_at = now
        self._controller = SpeedController(self.split.pace, submitted=now)
        if device_problem is not None and self.sides.device is not Use.NEVER:
            self._device_failed(device_problem, now)
        if self.request.max_tokens == 0:
            self._end("length", now)
            return
        if self.sides.device is Use.START:
            self.device.start(now)
        if self.sides.cloud is Use.START:
            self._ask_cloud(now)

    def _step_done(self, done: StepDone, now: float) -> None:
        step = self.device.finish_step(done, now)
        if step is None or self._ending is not None:
            return
        if done.sampled is None or step.sample_at is None or self._context_stale:
            return
        if step.sample_at < len(self._context):
            # The cloud supplied this token while the device was computing it: at least the two can be compared.
            self.device.compare(done.sampled, self._context[step.sample_at])
            return
        if isinstance(self.cloud.state, Open):
            self._stop_cloud(self.cloud.state, "taken_over")
            self.cloud.state.superseded = True
        if done.sampled in self._tokens.eos_ids:
            self._end("eos", now)
            return
        if self.handover_index is None and self.output.pieces and self.output.pieces[-1].source is Source.CLOUD:
            self.handover_index = len(self.output)
            self._commands.append(AnnounceHandOver(self.handover_index))
        self._append(done.sampled, self._tokens.token_bytes(done.sampled), Source.DEVICE, now)
        self._context.append(done.sampled)

    def _device_failed(self, message: str, now: float) -> None:
        if isinstance(self.device.state, Dead):
            return
        unusable = not self.device.progress or self.device.fed == 0
        self.device.fail(message)
        if self._ending is None:
            self._notify("device_unusable" if unusable else "device_failed", message)
            self.controller.expect_device(now, None, None)

    def _cloud_tokens(self, event: CloudTokens, now: float) -> None:
        attempt = self._receive(event.attempt, event.first, len(event.ids), now)
        if attempt is None:
            return
        for token in event.ids:
            if self._ending is None:
                data = self.tokenizer.token_bytes(token) if self.tokenizer else b""
                self._context.append(token)
                self._append(token, data, Source.CLOUD, now)

    def _cloud_text(self, event: CloudText, now: float) -> None:
        attempt = self._receive(event.attempt, event.first, event.count, now)
        if attempt is None:
            return
        self._context_stale = True
        self._append(None, event.data, Source.CLOUD, now)

    def _receive(self, number: int, first: int, count: int, now: float) -> Open | None:
        """Book what came; None where it is not to be used."""
        attempt = self.cloud.current(number)
        if attempt is None or self._ending is not None:
            return None
        if first != attempt.received or count < 1 or attempt.received + count > attempt.grant:
            self._commands.append(StopCloud(number, "cancelled"))
            expected = f"token {attempt.received} of {attempt.grant}"
            self._cloud_gone(f"the service sent {count} from token {first}; expected {expected}", now, retry_in=None)
            return None
        self.cloud.received(attempt, count, now)
        return None if attempt.superseded else attempt

    def _cloud_finished(self, event: CloudFinished, now: float) -> None:
        attempt = self.cloud.current(event.attempt)
        if attempt is None:
            return
        self.cloud.add_busy(event.busy_ms)
        self.cloud.state = GrantUsed()
        if self._ending is not None or attempt.superseded:
            return
        if event.reason == "eos" or event.reason == "stop":  # noqa: PLR1714 - keeps the literal types apart
            self._end(event.reason, now)
        elif attempt.stopping:
            return
        elif event.reason == "context":
            self._cloud_gone("the cloud's context is full", now, retry_in=None)
        elif event.reason == "stopped":
            self._cloud_gone("the service stopped unasked", now, retry_in=0.0)

    def _cloud_refused(self, event: CloudRefused, now: float) -> None:
        if self.cloud.current(event.attempt):
            self._cloud_gone(event.message, now, retry_in=event.retry_after, kind="cloud_refused")

    def _cancel(self) -> None:
        self._release_sides("cancelled")
        self._finish("cancelled")

    def _check_deadlines(self, now: float) -> None:
        state = self.device.state
        if isinstance(state, Busy) and now >= state.since + self.patience.device_pass and self._ending is None:
            self._commands.append(CancelStep())
            self._device_failed(f"no pass ended within {self.patience.device_pass:g} s", now)
        deadline = self.cloud.deadline()
        if self._ending is not None or deadline is None or now < deadline:
            return
        match self.cloud.state:
            case Waiting():
                self._ask_cloud(now)
            case Open() as attempt if attempt.stopping or attempt.remaining == 0:
                self.cloud.state = GrantUsed()  # All that was asked for came; only the closing word is missing.
            case Open() as attempt:
                kind = "first token" if attempt.received == 0 else "token"
                limit = self.patience.first_token if attempt.received == 0 else self.patience.idle
                self._commands.append(StopCloud(attempt.number, "cancelled"))
                self._cloud_gone(f"no {kind} from the cloud within {limit:g} s", now, retry_in=0.0)
            case _:
                pass

    # --- what follows from the state -----------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        if self._ending is None:
            self._keep_a_side_working(now)
        if self._ending is None:
            self._step_device(now)
            self._forecast(now)
            self._extend(now)
            self._tell_progress(now)
        self._show(now)
        if self._ending is None or self.shown < len(self.output):
            return
        if isinstance(self.cloud.state, Open) and self._ending != "failed" and now < self._ended_at + CLOSING_GRACE:
            return
        self._finish(self._ending)

    def _keep_a_side_working(self, now: float) -> None:
        """A standby side starts when the other cannot finish; when neither can, the answer ends here."""
        cloud = self.cloud.state
        cloud_lost = isinstance(cloud, Gone) or self.sides.cloud is Use.NEVER
        device_lost = isinstance(self.device.state, Dead) or self.sides.device is Use.NEVER
        if device_lost and cloud_lost:
            self._end("failed", now)
        elif device_lost and isinstance(cloud, Open) and not cloud.stopping:
            self._raise_grant(cloud, cloud.received + self.request.max_tokens - len(self.output), now)
        elif not self.device.alive and isinstance(cloud, NotAsked | GrantUsed):
            self._ask_cloud(now)
        elif isinstance(self.device.state, Resting) and cloud_lost:
            self.device.start(now)

    def _step_device(self, now: float) -> None:
        if not isinstance(self.device.state, Ready):
            return
        self._refresh_context()
        catching_up = self.device.prompt_done
        step = self.device.next_step(self._context, now)
        if step is None:
            return
        self._commands.append(step)
        cloud = self.cloud.state
        if (
            self.sides.hand_over
            and catching_up
            and step.sample_at is not None
            and len(step.tokens) <= LAST_CATCH_UP
            and isinstance(cloud, Open)
        ):
            self._stop_cloud(cloud, "taken_over")

    def _refresh_context(self) -> None:
        """Where text travels, the device's view of the output is the cloud's text in its own tokens."""
        if self._context_stale:
            self._context = self._tokens.encode(self.output.raw_text())
            self._context_stale = False

    def _forecast(self, now: float) -> None:
        cloud = self.cloud.state
        remaining = cloud.remaining if isinstance(cloud, Open) else 0
        if self.device.alive and not self._device_leads():
            ready_in = self.device.ready_in(self._context, remaining, now)
            if ready_in is not None:
                self.controller.expect_device(now, now + ready_in, self.device.forecast.tpot)
        elif self.device.alive:
            self.controller.expect_device(now, now, self.device.forecast.tpot)
        more_to_come = isinstance(cloud, Open) and not cloud.stopping
        self.controller.cloud_state(
            now,
            remaining=remaining,
            tpot=self.cloud.forecast.tpot if more_to_come else None,
            round_trip=self.cloud.forecast.round_trip or 0.0,
        )

    def _extend(self, now: float) -> None:
        """More grant when even the slowest pace would run dry before the device is ready."""
        if not self.sides.hand_over or not self.device.alive or self._device_leads():
            return
        more = self.controller.extension(now)
        room = min(self.request.max_tokens, self.split.max_grant)
        cloud = self.cloud.state
        if more <= 0 or not isinstance(cloud, Open) or cloud.stopping:
            return
        grant = min(cloud.grant + max(more, LEAST_EXTENSION), room - cloud.base)
        if grant > cloud.grant:
            if not cloud.extended:
                self._notify("extended", f"the device is late: more than {cloud.grant} tokens are asked of the cloud")
            cloud.extended = True
            self._raise_grant(cloud, grant, now)

    def _tell_progress(self, now: float) -> None:
        cloud = self.cloud.state
        if not isinstance(cloud, Open) or cloud.received == 0 or cloud.remaining == 0:
            return
        if cloud.told_at is not None and now < cloud.told_at + self.patience.progress_every:
            return
        cloud.told_at = now
        ready_in = self.device.ready_in(self._context, cloud.remaining, now) if self.device.alive else None
        self._commands.append(TellProgress(cloud.number, len(self.output), self.shown, self.controller.pace, ready_in))

    def _show(self, now: float) -> None:
        # A failed answer holds nothing back.
        count = len(self.output) - self.shown if self._ending == "failed" else self.controller.due(now)
        for _ in range(count):
            piece = self.output.pieces[self.shown]
            self._commands.append(Show(self.shown, piece.token, piece.text, piece.source))
            self.releases.append(now)
            self.shown += 1

    # --- pieces --------------------------------------------------------------------------------------------------

    @property
    def _tokens(self) -> TokenSide:
        if self.tokenizer is None:
            raise IllegalInputError("a generation without a tokenizer has no device")
        return self.tokenizer

    def _phase(self) -> str:
        return "not submitted" if self._controller is None else "under way"

    def _device_leads(self) -> bool:
        return self.device.alive and bool(self.output.pieces) and self.output.pieces[-1].source is Source.DEVICE

    def _append(self, token: int | None, data: bytes, source: Source, now: float) -> None:
        self.output.append(token, data, source)
        self.arrivals.append(now)
        self.controller.arrived(now, 1)
        if self.output.closed:
            self._end("stop", now)
        elif len(self.output) >= self.request.max_tokens:
            self._end("length", now)

    def _ask_cloud(self, now: float) -> None:
        left = self.request.max_tokens - len(self.output)
        grant = left
        if self.sides.hand_over and not isinstance(self.device.state, Dead):
            grant = min(left, self._initial_grant())
        if grant <= 0:
            return
        attempt = self.cloud.open(base=len(self.output), grant=grant, now=now)
        ids = self.output.token_ids
        complete = ids if len(ids) == len(self.output) else None
        self._commands.append(AskCloud(attempt.number, grant, complete, self.output.raw_text()))

    def _initial_grant(self) -> int:
        # The prompt, and for what is received one pass at least.
        tokens = self.device.padded(len(self.request.prompt)) + self.device.block
        return initial_grant(self.split, tokens, self.device.forecast, self.cloud.forecast)

    def _raise_grant(self, attempt: Open, grant: int, now: float) -> None:
        if grant > attempt.grant:
            self.cloud.extend(attempt, grant, now)
            self._commands.append(ExtendCloud(attempt.number, grant))

    def _stop_cloud(self, attempt: Open, reason: str) -> None:
        if not attempt.stopping:
            attempt.stopping = True
            self._commands.append(StopCloud(attempt.number, "taken_over" if reason == "taken_over" else "cancelled"))

    def _cloud_gone(self, message: str, now: float, *, retry_in: float | None, kind: str = "cloud_lost") -> None:
        """The attempt under way is over without an end. Ask again only where nobody else can finish."""
        stopping = isinstance(self.cloud.state, Open) and self.cloud.state.stopping
        alone = not self.device.alive and self.sides.device is not Use.STANDBY
        attempts_left = self.cloud.attempts < self.patience.cloud_attempts
        if stopping:
            self.cloud.state = GrantUsed()
            return
        self._notify("cloud_refused" if kind == "cloud_refused" else "cloud_lost", message)
        if alone and attempts_left and retry_in is not None and retry_in <= self.patience.first_token:
            delay = RETRY_DELAYS[min(self.cloud.attempts - 1, len(RETRY_DELAYS) - 1)]
            self.cloud.state = Waiting(now + max(retry_in, delay))
        else:
            self.cloud.state = Gone(message)

    def _notify(self, kind: str, message: str) -> None:
        self.notices.append(f"{kind}: {message}")
        self._commands.append(Notify(kind, message))  # type: ignore[arg-type]

    def _release_sides(self, reason: str) -> None:
        if isinstance(self.cloud.state, Open):
            self._stop_cloud(self.cloud.state, reason)
        if isinstance(self.device.state, Busy):
            self._commands.append(CancelStep())

    def _end(self, reason: FinishReason, now: float) -> None:
        """Nothing more will be appended; what is in hand is still to be shown."""
        if self._ending is not None:
            return
        self._ending = reason
        self._ended_at = now
        self._release_sides("taken_over")
        pieces = len(self.output)
        before = self.output.pieces[-1].text if pieces else ""
        self.output.end()
        if pieces and self.shown == pieces and self.output.pieces[-1].text != before:
            last = self.output.pieces[-1]
            self._commands.append(Show(pieces - 1, None, last.text[len(before) :], last.source))
        self.controller.finished(now)

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self._commands.append(Done(reason))
