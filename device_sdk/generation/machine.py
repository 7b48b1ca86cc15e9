"""The generation: whoever has the next token first supplies it; the speed controller says when it is shown.

Both sides run from the first instant that the mode allows. Losing one of them is no special case: the other is
already on its way, or is started. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from typing import Literal, assert_never

from device_sdk.generation.agreement import HandOverGate
from device_sdk.generation.bridge import Bridge
from device_sdk.generation.cloud_track import CloudTrack, Gone, GrantUsed, NotAsked, Open, Waiting
from device_sdk.generation.commands import (
    AnnounceHandOver,
    AnnounceRefinement,
    CancelStep,
    Command,
    Done,
    Notify,
    StopCloud,
)
from device_sdk.generation.device_track import Busy, Dead, Delayed, DeviceTrack, Ready, Resting
from device_sdk.generation.inputs import (
    CancelRequested,
    CloudFinished,
    CloudLost,
    CloudRefused,
    CloudText,
    CloudTokens,
    DeviceEmptied,
    DeviceFailed,
    Input,
    LinkUp,
    PauseRequested,
    Refined,
    RefinementRefused,
    ResumeRequested,
    StepDone,
    Submitted,
    Tick,
)
from device_sdk.generation.output import Output
from device_sdk.generation.pausing import PausableClock
from device_sdk.generation.plan import Patience, Request, Sides, TokenSide, Use
from device_sdk.generation.prompt import PromptTrack
from device_sdk.generation.refinement import RefinementTrack
from device_sdk.generation.showing import Showing
from device_sdk.report import FinishReason, NoticeKind, Source
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings

#: A catch-up step of at most this many tokens is the last one before the device takes over.
LAST_CATCH_UP = 4

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
        self.output = Output(request.stop, request.thinking)
        protected = request.refine.protected if request.refine else ()
        fit = request.fit
        room, read_ahead = (fit.room, fit.read_ahead) if fit else (None, 0)
        prompt = PromptTrack(request.prompt, protected, read=request.read, room=room, read_ahead=read_ahead)
        self.device = DeviceTrack(prompt, device, split.chunk, block)
        self.cloud = CloudTrack(cloud, self.patience, len(request.prompt) or None, limit=request.cloud_limit)
        self.refinement = RefinementTrack(request.refine, len(request.prompt), cloud)
        self._bridge = Bridge(split, self.device, self.cloud, self.refinement)
        least = split.min_agreement if sides.hand_over else None
        limit = min(split.max_grant, request.max_tokens)
        self._gate = HandOverGate(least, limit, self.device.agreement, self.cloud)
        self._clock = PausableClock()
        self._cloud_paused = False
        self.notices: list[str] = []
        self.handover_index: int | None = None
        self.finish_reason: FinishReason | None = None
        self._showing: Showing | None = None
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
    def showing(self) -> Showing:
        if self._showing is None:
            raise IllegalInputError("the generation has not been submitted")
        return self._showing

    def handle(self, event: Input, now: float) -> list[Command]:
        if self.done:
            return []
        if isinstance(event, Submitted) != (self._showing is None):
            phase = "not submitted" if self._showing is None else "under way"
            raise IllegalInputError(f"{type(event).__name__} in a generation that is {phase}")
        outside, now = now, self._clock.at(now)
        match event:
            case Submitted(device_problem=problem):
                self._submit(problem, now)
            case StepDone():
                self._step_done(event, now)
            case DeviceFailed(message=message):
                self._device_failed(message, now)
            case LinkUp(round_trip=round_trip):
                self.cloud.forecast.observe_round_trip(round_trip)
            case Refined():
                self._refined(event, now)
            case RefinementRefused(attempt=attempt, message=message):
                if self.cloud.current(attempt):
                    self._notify("refinement_ignored", message)
            case CloudTokens():
                self._cloud_tokens(event, now)
            case CloudText():
                self._cloud_text(event, now)
            case CloudFinished():
                self._cloud_finished(event, now)
            case CloudRefused(attempt=attempt, message=message, retry_after=retry_after):
                if self.cloud.current(attempt):
                    self._cloud_gone(message, now, retry_in=retry_after, kind="cloud_refused")
            case CloudLost(attempt=attempt, message=message, retriable=retriable):
                if self.cloud.current(attempt):
                    self._cloud_gone(message, now, retry_in=0.0 if retriable else None)
            case CancelRequested():
                self._release_sides("cancelled")
                self._finish("cancelled")
            case PauseRequested():
                self._pause(outside)
            case ResumeRequested():
                self._resume(outside)
            case DeviceEmptied():
                self._gate.release()
                if isinstance(self.device.state, Busy):
                    self._commands.append(CancelStep())
                self.device.empty(now)
            case Tick():
                self._check_deadlines(now)
            case _:
                assert_never(event)
        if not self.done and not self._clock.paused:
            self._advance(self._clock.at(outside))
        commands, self._commands = self._commands, []
        return commands

    def wakeup(self) -> float | None:
        """When to send the next `Tick`, if nothing else happens before."""
        if self.done or self._showing is None or self._clock.paused:
            return None
        times = [self.showing.controller.next_due()]
        if self.device.alive and self.device.prompt.undecided:
            times.append(self.refinement.give_up_at(self._bridge.patience))
        if self._ending is not None and self.showing.all_shown and isinstance(self.cloud.state, Open):
            times.append(self._ended_at + CLOSING_GRACE)
        if self._ending is None:
            times += [self.cloud.deadline(), self.cloud.progress_due()]
            if isinstance(self.device.state, Busy):
                times.append(self.device.state.since + self.patience.device_pass)
            elif isinstance(self.device.state, Delayed):
                times.append(self.device.state.until)
        return min((self._clock.outside(time) for time in times if time is not None), default=None)

    # --- inputs --------------------------------------------------------------------------------------------------

    def _submit(self, device_problem: str | None, now: float) -> None:
        self._showing = Showing(self.output, self.split.pace, now)
        if device_problem is not None and self.sides.device is not Use.NEVER:
            self._device_failed(device_problem, now)
        if self.request.max_tokens == 0:
            self._end("length", now)
            return
        if self.sides.device is Use.START:
            self.device.start(now, self.request.device_wait)
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
        elif not self._device_leads and self._gate.holds(len(self.output)):
            self._gate.keep(step.sample_at, done.sampled)
        else:
            self._say(done.sampled, now)

    def _say(self, sampled: int, now: float) -> None:
        """The device's own token is the next of the output."""
        if isinstance(self.cloud.state, Open):
            self._commands += self.cloud.stop("taken_over")
            self.cloud.state.superseded = True
        if sampled in self._tokens.eos_ids:
            self._end("eos", now)
            return
        if self.handover_index is None and self.output.pieces and self.output.pieces[-1].source is Source.CLOUD:
            self.handover_index = len(self.output)
            self._commands.append(AnnounceHandOver(self.handover_index))
        self._append(sampled, self._tokens.token_bytes(sampled), Source.DEVICE, now)
        self._context.append(sampled)

    def _device_failed(self, message: str, now: float) -> None:
        if isinstance(self.device.state, Dead):
            return
        unusable = not self.device.progress or self.device.fed == 0
        self.device.fail(message)
        if self._ending is None:
            self._notify("device_unusable" if unusable else "device_failed", message)
            self.showing.controller.expect_device(now, None, None)

    def _refined(self, event: Refined, now: float) -> None:
        """What lies ahead of the device's cursor is what this refinement says; too late, it changes nothing."""
        if self.cloud.current(event.attempt) is None or self._ending is not None:
            return
        prompt = self.device.prompt
        objection = self.refinement.objection(event)
        if objection is not None:
            self._notify("refinement_ignored", objection)
            return
        undecided = prompt.undecided
        if not prompt.refine(event.keep if event.guard.decision == "passed" else [(0, len(prompt))]):
            too_long = f"the cloud keeps more of the prompt ({event.guard.decision}) than the {prompt.room} tokens"
            too_long += " that the device's context has room for"
            if undecided:
                self._device_failed(too_long, now)
            else:
                self._notify("refinement_ignored", too_long)
            return
        self.refinement.used(event, prompt.kept_share, now)
        self._commands.append(AnnounceRefinement(event.stage, event.final, prompt.kept_share, event.guard))

    def _cloud_tokens(self, event: CloudTokens, now: float) -> None:
        if self._receive(event.attempt, event.first, len(event.ids), now):
            for token in event.ids:
                if self._ending is None:
                    data = self.tokenizer.token_bytes(token) if self.tokenizer else b""
                    self._gate.compare(len(self._context), token)
                    self._context.append(token)
                    self._append(token, data, Source.CLOUD, now)

    def _cloud_text(self, event: CloudText, now: float) -> None:
        if self._receive(event.attempt, event.first, event.count, now):
            self._context_stale = True
            self._gate.release()
            self._append(None, event.data, Source.CLOUD, now, event.count)

    def _receive(self, number: int, first: int, count: int, now: float) -> bool:
        """Book what came; whether it is to be used."""
        attempt = self.cloud.current(number)
        if attempt is None or self._ending is not None:
            return False
        misfit = self.cloud.misfit(attempt, first, count)
        if misfit is not None:
            self._commands.append(StopCloud(number, "cancelled"))
            self._cloud_gone(misfit, now, retry_in=None)
            return False
        self.cloud.received(attempt, count, now)
        self.refinement.answered(now)
        return not attempt.superseded

    def _cloud_finished(self, event: CloudFinished, now: float) -> None:
        attempt = self.cloud.current(event.attempt)
        if attempt is None:
            return
        self.cloud.add_busy(event.busy_ms)
        self.cloud.state = GrantUsed()
        self.refinement.over(served=event.reason != "stopped")
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

    def _pause(self, outside: float) -> None:
        if not self._clock.paused:
            self._clock.pause(outside)
            stop = self.cloud.stop("cancelled")
            self._cloud_paused = bool(stop)
            self._commands += stop

    def _resume(self, outside: float) -> None:
        """Where the cloud was at work, it is asked anew, for the output as it now is."""
        if not self._clock.paused:
            return
        self._clock.resume(outside)
        if not self._cloud_paused or self._ending is not None or isinstance(self.cloud.state, Gone):
            return
        self.cloud.state = GrantUsed()
        if self.device.alive and not self._device_leads:
            self._ask_cloud(self._clock.at(outside))

    def _check_deadlines(self, now: float) -> None:
        if self._ending is not None:
            return
        state = self.device.state
        if isinstance(state, Busy) and now >= state.since + self.patience.device_pass:
            self._commands.append(CancelStep())
            self._device_failed(f"no pass ended within {self.patience.device_pass:g} s", now)
        deadline = self.cloud.deadline()
        if deadline is None or now < deadline:
            return
        cloud = self.cloud.state
        if isinstance(cloud, Waiting):
            self._ask_cloud(now)
        elif isinstance(cloud, Open) and (overdue := self.cloud.overdue(cloud)) is not None:
            self._commands.append(StopCloud(cloud.number, "cancelled"))
            self._cloud_gone(overdue, now, retry_in=0.0)

    # --- what follows from the state -----------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        if self._ending is None:
            self._decide_unrefined(now)
            self._keep_a_side_working(now)
        if self._ending is None:
            self._step_device(now)
            ready_in = self._bridge.ready_in(self._context, now) if self.device.alive else None
            self._bridge.forecast(self.showing, 0.0 if self._device_leads else ready_in, now)
            self._extend(now)
            pace = self.showing.controller.pace
            self._commands += self.cloud.tell(len(self.output), self.showing.shown, pace, ready_in, now)
        # A failed answer holds nothing back.
        self._commands += self.showing.due(now, everything=self._ending == "failed")
        if self._ending is None or not self.showing.all_shown:
            return
        if isinstance(self.cloud.state, Open) and self._ending != "failed" and now < self._ended_at + CLOSING_GRACE:
            return
        self._finish(self._ending)

    def _decide_unrefined(self, now: float) -> None:
        """Where only a refinement can say what to read and none is to be waited for, the device reads everything."""
        prompt = self.device.prompt
        if not prompt.undecided or not self.device.alive or self.refinement.awaited(now, self._bridge.patience):
            return
        if not prompt.refine([(0, len(prompt))]):
            missing = f"no refinement came for a prompt of {len(prompt)} tokens"
            self._device_failed(f"{missing}, and the device's context has room for {prompt.room}", now)

    def _keep_a_side_working(self, now: float) -> None:
        """A standby side starts when the other cannot finish; when neither can, the answer ends here."""
        cloud = self.cloud.state
        cloud_lost = isinstance(cloud, Gone) or self.sides.cloud is Use.NEVER
        device_lost = isinstance(self.device.state, Dead) or self.sides.device is Use.NEVER
        if device_lost and cloud_lost:
            self._end("failed", now)
        elif device_lost and isinstance(cloud, Open) and not cloud.stopping:
            self._commands += self.cloud.extend(cloud, cloud.received + self._room, now)
        elif not self.device.alive and isinstance(cloud, NotAsked | GrantUsed):
            self._ask_cloud(now)
            if isinstance(self.cloud.state, Gone):  # It has given all that it may.
                self._keep_a_side_working(now)
        elif (isinstance(self.device.state, Resting) and cloud_lost) or self._bridge.device_begins(now):
            self.device.start(now)

    def _step_device(self, now: float) -> None:
        if not isinstance(self.device.state, Ready):
            return
        if self._context_stale:
            # Where text travels, the device's view of the output is the cloud's text in its own tokens.
            self._context = self._tokens.encode(self.output.raw_text())
            self._context_stale = False
        held = not self._device_leads and self._gate.holds(len(self.output))
        if held:
            self._ask_for_more(now)
            if self._gate.waits:
                return  # All is read; what comes next is the cloud's to say.
        elif (own := self._gate.release()) is not None:
            self._say(own, now)
            if self._ending is not None:
                return
        catching_up = self.device.prompt.done
        step = self.device.next_step(self._context, now)
        if step is None:
            return
        self._commands.append(step)
        last = step.sample_at is not None and len(step.tokens) <= LAST_CATCH_UP
        if self.sides.hand_over and catching_up and last and not held:
            self._commands += self.cloud.stop("taken_over")

    def _ask_for_more(self, now: float) -> None:
        """While the device disagrees with it, the cloud goes on."""
        cloud, output = self.cloud.state, len(self.output)
        grants = len(self.cloud.grants)
        if isinstance(cloud, Open):
            self._commands += self.cloud.extend(cloud, self._gate.grant(cloud.base, output), now)
        else:
            self._commands.append(self.cloud.open(self.output, self._gate.grant(output, output), now, refine=False))
        if isinstance(self.cloud.state, Open):
            self.cloud.state.extended = True
        if len(self.cloud.grants) > grants and not self._gate.told:
            self._gate.told = True
            self._notify("extended", f"{self._gate.reason()}: more is asked of the cloud")

    def _extend(self, now: float) -> None:
        cloud = self.cloud.state
        if not self.sides.hand_over or not self.device.alive or self._device_leads:
            return
        if not isinstance(cloud, Open) or cloud.stopping:
            return
        if back := self._bridge.thinking_to_give_back(cloud, self.output):
            cloud.given_back += back
            self._commands += self.cloud.extend(
                cloud, min(cloud.grant + back, self.request.max_tokens - cloud.base), now
            )
        grant = min(self._bridge.raised_grant(cloud, self.showing, now), self.request.max_tokens - cloud.base)
        if grant > cloud.grant:
            if not cloud.extended:
                late = f"ready later than expected: more than {cloud.grant} tokens are asked of the cloud"
                self._notify("extended", f"the device is {late}")
            cloud.extended = True
            self._commands += self.cloud.extend(cloud, grant, now)

    # --- pieces --------------------------------------------------------------------------------------------------

    @property
    def _tokens(self) -> TokenSide:
        if self.tokenizer is None:
            raise IllegalInputError("a generation without a tokenizer has no device")
        return self.tokenizer

    @property
    def _room(self) -> int:
        """Tokens that the answer may still grow by."""
        return self.request.max_tokens - len(self.output)

    @property
    def _device_leads(self) -> bool:
        return self.device.alive and bool(self.output.pieces) and self.output.pieces[-1].source is Source.DEVICE

    def _append(self, token: int | None, data: bytes, source: Source, now: float, tokens: int = 1) -> None:
        self.showing.append(token, data, source, now, tokens)
        if self.output.closed:
            self._end("stop", now)
        elif self._room <= 0:
            self._end("length", now)

    def _ask_cloud(self, now: float) -> None:
        grant = self._room
        refine = self.request.refine is not None and self.device.alive and not self.output.pieces
        if refine:
            self.refinement.asked(now)
        if self.sides.hand_over and not isinstance(self.device.state, Dead):
            grant = min(grant, self._bridge.first_grant(now))
        if self.cloud.spent and not refine:
            message = f"the cloud has given the {self.cloud.limit} tokens that it may"
            self.cloud.state = Gone(message)
            self._notify("cloud_refused", message)
        elif grant > 0 or (refine and self.device.prompt.undecided):
            self._commands.append(self.cloud.open(self.output, grant, now, refine=refine))
        else:
            self.cloud.forecast.observe_left_out()

    def _cloud_gone(self, message: str, now: float, *, retry_in: float | None, kind: NoticeKind = "cloud_lost") -> None:
        """The attempt under way is over without an end."""
        self.refinement.over(served=False)
        alone = not self.device.alive and self.sides.device is not Use.STANDBY
        if self.cloud.gone(message, now, retry_in=retry_in, alone=alone):
            self._notify(kind, message)

    def _notify(self, kind: NoticeKind, message: str) -> None:
        self.notices.append(f"{kind}: {message}")
        self._commands.append(Notify(kind, message))

    def _release_sides(self, reason: Literal["taken_over", "cancelled"]) -> None:
        self._commands += self.cloud.stop(reason)
        if isinstance(self.device.state, Busy):
            self._commands.append(CancelStep())

    def _end(self, reason: FinishReason, now: float) -> None:
        """Nothing more will be appended; what is in hand is still to be shown."""
        if self._ending is None:
            self._ending, self._ended_at = reason, now
            self._release_sides("taken_over")
            if reason != "failed":
                self._commands += self.cloud.settle(self.output)
            self._commands += self.showing.end(now)

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self._commands.append(Done(reason))
