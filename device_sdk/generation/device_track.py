"""The device's side of a generation: which tokens its KV cache holds and which step comes next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from device_sdk.generation.commands import Step
from device_sdk.generation.inputs import StepDone
from speed_controller.estimates import DeviceForecast

#: A cancellation waits for one pass at most, and a pass is how often the forecast learns.
PASS_SECONDS, LEAST_CHUNK, LARGEST_CHUNK, UNKNOWN_CHUNK = 0.1, 32, 512, 128


@dataclass(frozen=True, slots=True)
class Resting:
    """The device takes no part (yet)."""


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


DeviceState = Resting | Ready | Busy | Dead


@dataclass(slots=True)
class DeviceTrack:
    """Walks the prompt, then the output. The KV cache holds `prompt[:…]` then `context[:…]`: `fed` tokens in all."""

    prompt: Sequence[int]
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
    checked: int = 0
    agreed: int = 0
    progress: list[tuple[float, int]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return isinstance(self.state, Ready | Busy)

    @property
    def prompt_done(self) -> bool:
        return self.fed >= len(self.prompt)

    @property
    def agreement(self) -> float | None:
        return self.agreed / self.checked if self.checked else None

    def start(self, now: float) -> None:
        if isinstance(self.state, Resting):
            self.state = Ready()
            self.progress.append((now, 0))

    def fail(self, message: str) -> None:
        self.state = Dead(message)

    def next_step(self, context: Sequence[int], now: float) -> Step | None:
        """The next step towards having consumed prompt and `context` (the output in the device's tokens)."""
        if not isinstance(self.state, Ready):
            return None
        kept = self._keep(context)
        start = len(self.prompt) + len(kept) if self.prompt_done else self.fed
        if start < len(self.prompt):
            stop = min(start + self._chunk(), len(self.prompt))
            tokens = tuple(self.prompt[start:stop])
            known: tuple[int, ...] = tuple(context[:1]) if stop == len(self.prompt) else ()
            at_end = stop == len(self.prompt) and not context
            fed_output: list[int] = []
            first_received = 0
        else:
            first = start - len(self.prompt)
            tokens = tuple(context[first : first + self._chunk()])
            stop = start + len(tokens)
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
        self.state = Busy(step, now, stop)
        return step

    def _again(self, context: Sequence[int], now: float) -> Step:
        whole = [*self.prompt, *context]
        self.steps += 1
        step = Step(self.steps, len(whole) - 1, (whole[-1],), (), len(context), len(context), tuple(context))
        self.fed_output = list(context)
        self.state = Busy(step, now, len(whole))
        return step

    def _keep(self, context: Sequence[int]) -> list[int]:
        """The output tokens in the KV cache that are still right."""
        fed = self.fed_output
        if len(fed) <= len(context) and all(a == b for a, b in zip(fed, context, strict=False)):
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
        self.checked += len(done.agreed)
        self.agreed += sum(done.agreed)
        if len(step.tokens) == 1:
            self.forecast.observe_decode(done.seconds)
        else:
            self.forecast.observe_prefill(len(step.tokens), done.seconds)
        return step

    def compare(self, own: int, received: int) -> None:
        """The device's own token for a place that the cloud has filled meanwhile."""
        self.checked += 1
        self.agreed += own == received

    def ready_in(self, context: Sequence[int], expected: int, now: float) -> float | None:
        """Seconds until the device's first own token, if `expected` more tokens are received until then."""
        prompt_left = max(len(self.prompt) - self.fed, 0)
        output_left = len(context) + expected - len(self.fed_output)
        left = max(self.padded(prompt_left) + self.padded(max(output_left, 0)), 1)
        running, elapsed = 0, 0.0
        if isinstance(self.state, Busy):
            running, elapsed = self.padded(len(self.state.step.tokens)), now - self.state.since
        return self.forecast.first_token_in(max(left, running), running=running, elapsed=elapsed)

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
        self.last_chunk = min(max(int(PASS_SECONDS / per_token), least), LARGEST_CHUNK)
        return self.last_chunk
