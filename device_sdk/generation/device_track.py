"""The device's side of a generation: which tokens its KV cache holds and which step comes next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from device_sdk.generation.agreement import Agreement
from device_sdk.generation.chunks import LEAST_CHUNK, PASS_SECONDS, UNKNOWN_CHUNK, chunk_at, within_memory
from device_sdk.generation.commands import Step
from device_sdk.generation.inputs import StepDone
from device_sdk.generation.prompt import PromptTrack
from device_sdk.generation.reading import Reading
from device_sdk.generation.spans import size, union
from speed_controller.estimates import DeviceForecast


@dataclass(frozen=True, slots=True)
class Resting:
    """The device takes no part (yet)."""


@dataclass(frozen=True, slots=True)
class Delayed:
    """It takes part and begins at `until`, or as soon as there is reason to."""

    until: float


@dataclass(frozen=True, slots=True)
class Ready:
    """No step is under way."""


@dataclass(frozen=True, slots=True)
class Busy:
    """`step` is under way since `since`; `fed_after` is what the KV cache holds once it is done."""

    step: Step
    since: float
    fed_after: int


@dataclass(frozen=True, slots=True)
class Dead:
    """The engine failed; it takes no part any more."""

    message: str


DeviceState = Resting | Delayed | Ready | Busy | Dead


@dataclass(slots=True)
class DeviceTrack:
    """Walks the prompt, then the output. The KV cache holds what was taken of the prompt, then `context[:…]`: `fed`
    tokens in all, at contiguous positions."""

    prompt: PromptTrack
    forecast: DeviceForecast
    #: Tokens in one pass; None: as many as take about PASS_SECONDS.
    chunk: int | None
    #: Hardware compiled to fixed shapes pays for a multiple of this, however few tokens a pass has.
    block: int = 1
    state: DeviceState = field(default_factory=Resting)
    fed: int = 0
    #: Output tokens in the KV cache: kept apart from the output itself, because re-tokenized text may change.
    fed_output: list[int] = field(default_factory=list)
    steps: int = 0
    last_chunk: int = 0
    agreement: Agreement = field(default_factory=Agreement)
    progress: list[tuple[float, int]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return isinstance(self.state, Delayed | Ready | Busy)

    def start(self, now: float, wait: float = 0.0) -> None:
        """Take part, and begin in `wait` seconds; 0: now, also where it was to begin later."""
        if isinstance(self.state, Resting) and wait > 0:
            self.state = Delayed(now + wait)
        elif isinstance(self.state, Resting | Delayed):
            self.state = Ready()
            self.fed = self.prompt.fed
            self.progress.append((now, self.fed))

    def fail(self, message: str) -> None:
        self.state = Dead(message)

    def empty(self, now: float) -> None:
        """The KV cache is gone and may be filled again."""
        if isinstance(self.state, Ready | Busy):
            self.state = Ready()
        self.fed, self.fed_output = 0, []
        self.prompt.rewind()
        self.progress.append((now, 0))

    def wait_left(self, now: float) -> float:
        return max(self.state.until - now, 0.0) if isinstance(self.state, Delayed) else 0.0

    def next_step(self, context: Sequence[int], now: float) -> Step | None:
        """The next step towards having consumed prompt and `context` (the output in the device's tokens)."""
        if not isinstance(self.state, Ready):
            return None
        prompt = self.prompt
        if prompt.held:
            return None
        if prompt.left > 0:
            start, taken = prompt.fed, prompt.take(self._chunk())
            # What hardware of fixed shapes would pad the prompt's end with is room for what the cloud has said already.
            filling = context[: self.padded(len(taken)) - len(taken)] if prompt.done else ()
            tokens = (*taken, *filling)
            known: tuple[int, ...] = tuple(context[: len(filling) + 1]) if prompt.done else ()
            at_end = prompt.done and len(filling) == len(context)
            fed_output: list[int] = list(filling)
            first_received = 0
        else:
            kept = self._keep(context)
            first = len(kept)
            start, tokens = prompt.fed + first, tuple(context[first : first + self._chunk()])
            known = tuple(context[first + 1 : first + 1 + len(tokens)])
            at_end = first + len(tokens) == len(context)
            fed_output = [*kept, *tokens]
            first_received = first + 1
        if not tokens:
            # Every known token is consumed, but its logits belong to a step whose sample came too late to be used
            # (the context shrank by re-tokenizing). Consume the last token again.
            return self._again(context, now)
        self.steps += 1
        step = Step(self.steps, start, tokens, known, first_received, len(context) if at_end else None, tuple(context))
        self.fed_output = fed_output
        self.state = Busy(step, now, start + len(tokens))
        return step

    def holds(self) -> Reading | None:
        """What the KV cache holds for certain, whatever becomes of a step under way; None: what it held before."""
        match self.state:
            case Resting() | Delayed():
                return None
            case Dead():
                return Reading()
            case Busy(step=step):
                certain = step.keep
            case Ready():
                certain = self.fed
        length = len(self.prompt)
        taken = union(self.prompt.taken, [(length, length + len(self.fed_output))])
        return Reading((*self.prompt.tokens, *self.fed_output), taken).cut(min(certain, size(taken)))

    def _again(self, context: Sequence[int], now: float) -> Step:
        length = self.prompt.fed + len(context)
        last = context[-1] if context else self.prompt.tokens[-1]
        self.steps += 1
        step = Step(self.steps, length - 1, (last,), (), len(context), len(context), tuple(context))
        self.fed_output = list(context)
        self.state = Busy(step, now, length)
        return step

    def _keep(self, context: Sequence[int]) -> list[int]:
        """The output tokens in the KV cache that are still right."""
        fed = self.fed_output
        if fed == list(context[: len(fed)]):
            return fed
        agreed = 0
        for a, b in zip(fed, context, strict=False):
            if a != b:
                break
            agreed += 1
        return fed[:agreed]

    def finish_step(self, done: StepDone, now: float) -> Step | None:
        """Take note of a finished step; None where it is not the one under way."""
        if not isinstance(self.state, Busy) or self.state.step.number != done.number:
            return None
        step = self.state.step
        self.fed = self.state.fed_after
        self.state = Ready()
        self.progress.append((now, self.fed))
        self.agreement.note(done.agreed)
        if len(step.tokens) == 1:
            self.forecast.observe_decode(done.seconds)
        else:
            self.forecast.observe_prefill(self.padded(len(step.tokens)), done.seconds)
        return step

    def compare(self, own: int, received: int) -> None:
        """The device's own token for a place that the cloud has filled meanwhile."""
        self.agreement.note([own == received])

    def ready_in(self, prompt_left: int, context: Sequence[int], expected: int, now: float) -> float | None:
        """Seconds until the device's first own token, if `prompt_left` tokens of the prompt are still to be taken and
        `expected` more of the output are received until then."""
        output_left = max(len(context) + expected - len(self.fed_output), 0)
        left = self.padded(prompt_left) + self.padded(output_left)
        running, elapsed = 0, 0.0
        if isinstance(self.state, Busy):
            running, elapsed = self.padded(len(self.state.step.tokens)), now - self.state.since
        ready_in = self.forecast.first_token_in(max(left + running, 1), running=running, elapsed=elapsed)
        return None if ready_in is None else ready_in + self.wait_left(now)

    def reading_before(self, seconds: float, now: float) -> float:
        """Seconds of prefill in the steps that begin after the one under way and within `seconds`: what happens then
        finds the last of them half done, on average, and it is ended all the same."""
        seconds -= self.wait_left(now)
        if isinstance(self.state, Busy):
            running = self.forecast.ready_in(self.padded(len(self.state.step.tokens))) or 0.0
            seconds -= max(running - (now - self.state.since), 0.0)
        if seconds <= 0:
            return 0.0
        step = PASS_SECONDS if self.chunk is None else self.forecast.ready_in(self.chunk) or 0.0
        return seconds + step / 2

    def padded(self, tokens: int) -> int:
        """What `tokens` cost, in tokens."""
        return -(-tokens // self.block) * self.block

    def _chunk(self) -> int:
        if self.chunk is not None:
            return self.chunk
        if self.block > 1:
            return self.block
        per_token = self.forecast.ready_in(1)
        if not per_token:
            return UNKNOWN_CHUNK
        # Not below half of the last one at once, which is how the forecast tells a small rest from a slower device.
        least = max(LEAST_CHUNK, -(-self.last_chunk // 2))
        self.last_chunk = chunk_at(1 / per_token, least=least)
        return within_memory(self.last_chunk, self.fed)
