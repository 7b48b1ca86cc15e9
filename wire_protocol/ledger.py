"""Keeps both sides to the rules between messages: pure, no I/O, no clock.

Each side shows the ledger every message it sends (before sending) and every message it receives (before acting on
it), in that order, from after `hello` and `welcome` to the end of the connection. A message that raises must not be
sent; one that was received closes the connection. Both sides use the same ledger: messages cross on their way, and
what is legal on one side alone (a `stop` for a generation that has just finished) is legal here.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire_protocol.errors import OutOfOrderError
from wire_protocol.messages import (
    Accepted,
    CloudMessage,
    DeviceMessage,
    Draining,
    Error,
    Extend,
    Finished,
    Generate,
    Hello,
    Progress,
    Refinement,
    Rejected,
    Stop,
    Tokens,
    Welcome,
)


@dataclass(slots=True)
class _Generation:
    """What an open generation may still do."""

    #: Output index of the token that comes next, and of the first one not granted.
    next: int
    end: int
    first: int
    refine: bool
    accepted: bool = False
    stage: int = 0
    refined: bool = False


class GenerationLedger:
    """The generations of one connection: every `generate` ends in exactly one terminal message.

    Not thread-safe: it belongs to whoever reads and writes the connection.
    """

    def __init__(self, *, remember: int = 1_024) -> None:
        """`remember`: of how many ended generations late messages are still told from messages for unknown ones."""
        self._open: dict[str, _Generation] = {}
        self._ended: dict[str, None] = {}
        self._remember = remember

    @property
    def open(self) -> tuple[str, ...]:
        """Ids of the generations that wait for their terminal message, oldest first."""
        return tuple(self._open)

    def device_says(self, message: DeviceMessage) -> bool:
        """Whether `message` has an effect; False for one that comes too late, which is legal and to be ignored.

        Raises OutOfOrderError.
        """
        match message:
            case Hello():
                raise OutOfOrderError("`hello` is said once, before everything else")
            case Generate():
                self._begin(message)
                return True
            case Progress() | Extend() | Stop():
                generation = self._open.get(message.id)
                if generation is None and message.id not in self._ended:
                    raise OutOfOrderError(f"{_name(message)} for {message.id!r}, which was never begun", message.id)
                if generation is not None and isinstance(message, Extend):
                    generation.end = max(generation.end, generation.first + message.grant)
                return generation is not None

    def cloud_says(self, message: CloudMessage) -> None:
        """Raises OutOfOrderError."""
        match message:
            case Tokens():  # by far the most
                self._grow(message)
            case Welcome():
                raise OutOfOrderError("`welcome` is said once, before everything else")
            case Draining():
                return
            case Error(id=""):
                self.lose()
            case Accepted():
                self._accept(message)
            case Refinement():
                self._refine(message)
            case Finished():
                self._accepted(message)
                self._end(message.id)
            case Rejected():
                generation = self._find(message)
                # A refinement may have left before: a scorer of the gateway's own does not wait for the engine.
                if generation.next > generation.first:
                    raise OutOfOrderError(f"`rejected` for {message.id!r} after part of its result", message.id)
                self._end(message.id)
            case Error():
                self._find(message)
                self._end(message.id)

    def lose(self) -> tuple[str, ...]:
        """The connection is gone: every open generation ends, without a message. Returns their ids."""
        lost = self.open
        for generation in lost:
            self._end(generation)
        return lost

    def _begin(self, message: Generate) -> None:
        if message.id in self._open:
            raise OutOfOrderError(f"`generate` with id {message.id!r}, which is in use: choose another", message.id)
        self._ended.pop(message.id, None)
        first = len(message.output)
        self._open[message.id] = _Generation(
            next=first, end=first + message.grant, first=first, refine=message.refine is not None
        )

    def _accept(self, message: Accepted) -> None:
        generation = self._find(message)
        if generation.accepted:
            raise OutOfOrderError(f"a second `accepted` for {message.id!r}", message.id)
        generation.accepted = True

    def _refine(self, message: Refinement) -> None:
        generation = self._accepted(message)
        if not generation.refine:
            raise OutOfOrderError(f"`refinement` for {message.id!r}, which did not ask for one", message.id)
        if generation.refined or message.stage <= generation.stage:
            raise OutOfOrderError(
                f"`refinement` stage {message.stage} for {message.id!r} after "
                f"{'the final ' if generation.refined else ''}stage {generation.stage}",
                message.id,
            )
        generation.stage, generation.refined = message.stage, message.final

    def _grow(self, message: Tokens) -> None:
        generation = self._open.get(message.id)
        if generation is None or not generation.accepted:
            generation = self._accepted(message)  # says what is wrong
        end = message.end
        if message.first != generation.next:
            raise OutOfOrderError(
                f"`tokens` for {message.id!r} start at {message.first}, expected {generation.next}", message.id
            )
        if end > generation.end:
            raise OutOfOrderError(
                f"`tokens` for {message.id!r} end at {end}, granted up to {generation.end}", message.id
            )
        generation.next = end

    def _accepted(self, message: Refinement | Tokens | Finished) -> _Generation:
        generation = self._find(message)
        if not generation.accepted:
            raise OutOfOrderError(f"{_name(message)} for {message.id!r} before `accepted`", message.id)
        return generation

    def _find(self, message: Accepted | Refinement | Tokens | Finished | Rejected | Error) -> _Generation:
        generation = self._open.get(message.id)
        if generation is None:
            state = "has ended" if message.id in self._ended else "was never begun"
            raise OutOfOrderError(f"{_name(message)} for {message.id!r}, which {state}", message.id)
        return generation

    def _end(self, generation: str) -> None:
        del self._open[generation]
        self._ended[generation] = None
        if len(self._ended) > self._remember:
            del self._ended[next(iter(self._ended))]


def _name(message: DeviceMessage | CloudMessage) -> str:
    return f"`{message.__struct_config__.tag}`"
