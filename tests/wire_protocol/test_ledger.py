"""The ledger: what is in order passes on both sides, whatever crosses on the way; what is not is refused."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wire_protocol import CloudMessage, DeviceMessage, GenerationLedger, OutOfOrderError, terminal
from wire_protocol.messages import (
    Accepted,
    Draining,
    Error,
    Extend,
    Finished,
    Generate,
    Hello,
    Limits,
    Progress,
    Refine,
    Refinement,
    Rejected,
    Stop,
    Tokens,
    Welcome,
)

GENERATE = Generate("g", 4, prompt=(1,))
CONTINUE = Generate("g", 4, prompt=(1,), output=(7, 8), refine=Refine(0.5))
ACCEPTED = Accepted("g", 1)


def ledger(*messages: DeviceMessage | CloudMessage) -> GenerationLedger:
    """A ledger to which all this was said."""
    told = GenerationLedger()
    for message in messages:
        say(told, message)
    return told


def say(told: GenerationLedger, message: DeviceMessage | CloudMessage) -> bool | None:
    return told.device_says(message) if isinstance(message, DeviceMessage) else told.cloud_says(message)


@pytest.mark.parametrize(
    "messages",
    [
        [GENERATE, ACCEPTED, Tokens("g", 0, ids=(5, 6)), Tokens("g", 2, ids=(7, 8)), Finished("g", "grant")],
        [GENERATE, ACCEPTED, Tokens("g", 0, count=3, data=b"abc"), Finished("g", "eos")],
        [CONTINUE, ACCEPTED, Tokens("g", 2, ids=(5, 6, 7, 8)), Finished("g", "grant")],
        [GENERATE, Extend("g", 6), ACCEPTED, Tokens("g", 0, ids=(1, 2, 3, 4, 5, 6)), Finished("g", "grant")],
        [
            CONTINUE,
            ACCEPTED,
            Refinement("g", 1, False, "tokens", ()),
            Tokens("g", 2, ids=(5,)),
            Refinement("g", 3, True, "tokens", ()),
            Finished("g", "stopped"),
        ],
        [GENERATE, Rejected("g", "busy")],
        [GENERATE, ACCEPTED, Rejected("g", "deadline")],
        [CONTINUE, ACCEPTED, Refinement("g", 1, True, "tokens", ()), Rejected("g", "deadline")],
        [GENERATE, Error("g", "bad_request", "")],
        [GENERATE, ACCEPTED, Tokens("g", 0, ids=(5,)), Error("g", "engine", "")],
        [GENERATE, Draining(5.0), ACCEPTED, Finished("g", "eos"), GENERATE, Rejected("g", "draining")],
        [GENERATE, Error("", "internal", "")],
    ],
)
def test_what_is_in_order_passes_and_ends(messages: list[DeviceMessage | CloudMessage]) -> None:
    assert ledger(*messages).open == ()
    assert ledger(*messages[:-1]).open == ("g",)


LIMITS = Limits(1, 1, 1, 1)


@pytest.mark.parametrize(
    ("before", "message", "says"),
    [
        ([], Hello(1, "c"), "said once"),
        ([], Welcome(1, "s", "m", "", "", LIMITS, "ids"), "said once"),
        ([], Stop("g", "cancelled"), "never begun"),
        ([], Progress("g", 0, 0, 0.0), "never begun"),
        ([], Extend("g", 1), "never begun"),
        ([], ACCEPTED, "never begun"),
        ([], Error("g", "internal", ""), "never begun"),
        ([GENERATE], GENERATE, "in use"),
        ([GENERATE], Tokens("g", 0, ids=(5,)), "before `accepted`"),
        ([GENERATE], Finished("g", "eos"), "before `accepted`"),
        ([CONTINUE], Refinement("g", 1, True, "tokens", ()), "before `accepted`"),
        ([GENERATE, ACCEPTED], ACCEPTED, "second `accepted`"),
        ([GENERATE, ACCEPTED], Refinement("g", 1, True, "tokens", ()), "did not ask"),
        ([GENERATE, ACCEPTED], Tokens("g", 1, ids=(5,)), "start at 1, expected 0"),
        ([GENERATE, ACCEPTED], Tokens("g", 0, count=5, data=b""), "end at 5, granted up to 4"),
        ([GENERATE, Extend("g", 2), ACCEPTED], Tokens("g", 0, count=5, data=b""), "granted up to 4"),
        ([CONTINUE, ACCEPTED], Tokens("g", 0, ids=(5,)), "start at 0, expected 2"),
        ([CONTINUE, ACCEPTED, Tokens("g", 2, ids=(5, 6))], Tokens("g", 3, ids=(6,)), "start at 3, expected 4"),
        (
            [CONTINUE, ACCEPTED, Refinement("g", 2, False, "tokens", ())],
            Refinement("g", 2, False, "tokens", ()),
            "stage 2 for 'g' after stage 2",
        ),
        (
            [CONTINUE, ACCEPTED, Refinement("g", 1, True, "tokens", ())],
            Refinement("g", 2, True, "tokens", ()),
            "after the final stage 1",
        ),
        ([GENERATE, ACCEPTED, Tokens("g", 0, ids=(5,))], Rejected("g", "busy"), "after part of its result"),
        ([GENERATE, ACCEPTED, Finished("g", "eos")], Finished("g", "eos"), "`finished` for 'g', which has ended"),
        ([GENERATE, Rejected("g", "busy")], Error("g", "internal", ""), "`error` for 'g', which has ended"),
        ([GENERATE, Error("", "internal", "")], Tokens("g", 0, ids=(5,)), "has ended"),
    ],
)
def test_what_is_out_of_order_is_refused_and_changes_nothing(
    before: list[DeviceMessage | CloudMessage], message: DeviceMessage | CloudMessage, says: str
) -> None:
    told = ledger(*before)
    before_it = told.open
    with pytest.raises(OutOfOrderError, match=says) as refused:
        say(told, message)
    assert refused.value.generation == getattr(message, "id", None)
    assert told.open == before_it


@pytest.mark.parametrize("late", [Progress("g", 4, 4, 0.0), Extend("g", 9), Stop("g", "taken_over")])
def test_a_device_message_that_comes_too_late_is_ignored(late: DeviceMessage) -> None:
    told = ledger(GENERATE)
    assert told.device_says(late) is True
    told = ledger(GENERATE, ACCEPTED, Finished("g", "grant"))
    assert told.device_says(late) is False
    assert told.open == ()


def test_late_messages_are_told_from_unknown_ones_for_as_many_generations_as_set() -> None:
    told = GenerationLedger(remember=2)
    for name in "abc":
        told.device_says(Generate(name, 1, prompt=(1,)))
        told.cloud_says(Rejected(name, "busy"))
    assert told.device_says(Stop("b", "cancelled")) is False
    assert told.device_says(Stop("c", "cancelled")) is False
    with pytest.raises(OutOfOrderError, match="'a', which was never begun"):
        told.device_says(Stop("a", "cancelled"))


def test_a_lost_link_ends_what_was_open() -> None:
    told = ledger(GENERATE, Generate("h", 1, prompt=(1,)), Generate("i", 1, prompt=(1,)), Rejected("h", "busy"))
    assert told.lose() == ("g", "i")
    assert told.open == ()
    assert told.lose() == ()


def test_terminal_messages() -> None:
    assert terminal(Finished("g", "eos"))
    assert terminal(Rejected("g", "busy"))
    assert terminal(Error("g", "internal", ""))
    assert terminal(Error("", "internal", ""))
    assert not any(terminal(message) for message in (GENERATE, ACCEPTED, Stop("g", "cancelled"), Draining(0.0)))


class TwoSides(RuleBasedStateMachine):
    """A device and a cloud that keep to the rules as each sees them, over a link that is slow but in order."""

    def __init__(self) -> None:
        super().__init__()
        self.device, self.cloud = GenerationLedger(), GenerationLedger()
        self.up: deque[DeviceMessage] = deque()
        self.down: deque[CloudMessage] = deque()
        self.begun = 0
        self.endings: dict[str, int] = {}
        self.said: dict[str, int] = {}  # output tokens sent, by the cloud's count
        self.granted: dict[str, int] = {}
        self.wanted: dict[str, int] = {}

    @rule(grant=st.integers(0, 5))
    def generate(self, grant: int) -> None:
        name = f"g{self.begun}"
        self.begun += 1
        self.endings[name], self.wanted[name] = 0, grant
        self.send_up(Generate(name, grant, prompt=(1,)))

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), kind=st.sampled_from(["progress", "extend", "stop"]))
    def follow_up(self, data: st.DataObject, kind: str) -> None:
        """About any generation, also one that has ended: a device may not know yet."""
        name = f"g{data.draw(st.integers(0, self.begun - 1))}"
        match kind:
            case "progress":
                self.send_up(Progress(name, 0, 0, 0.0))
            case "extend":
                self.wanted[name] += 1
                self.send_up(Extend(name, self.wanted[name]))
            case _:
                self.send_up(Stop(name, "cancelled"))

    @precondition(lambda self: self.up)
    @rule()
    def arrive_in_cloud(self) -> None:
        message = self.up.popleft()
        effective = self.cloud.device_says(message)
        match message:
            case Generate():
                self.granted[message.id] = message.grant
                if self.begun % 3 == 0:
                    self.send_down(Rejected(message.id, "busy"))
                else:
                    self.said[message.id] = 0
                    self.send_down(Accepted(message.id, 1))
            case Extend() if effective:
                self.granted[message.id] = max(self.granted[message.id], message.grant)
            case Stop() if effective:
                self.send_down(Finished(message.id, "stopped"))

    @precondition(lambda self: self.cloud.open)
    @rule(data=st.data())
    def produce(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.cloud.open))
        if self.said[name] < self.granted[name]:
            self.send_down(Tokens(name, self.said[name], ids=(5,)))
            self.said[name] += 1
        elif data.draw(st.booleans()):
            self.send_down(Finished(name, "grant"))
        else:
            self.send_down(Error(name, "engine", ""))

    @precondition(lambda self: self.down)
    @rule()
    def arrive_on_device(self) -> None:
        message = self.down.popleft()
        self.device.cloud_says(message)
        if terminal(message):
            self.endings[message.id] += 1

    @invariant()
    def every_generation_is_open_or_has_ended_once(self) -> None:
        assert all(count == (name not in self.device.open) for name, count in self.endings.items())

    def teardown(self) -> None:
        """The rest of what is under way arrives: both sides agree on what is open."""
        while self.up or self.down:
            (self.arrive_in_cloud if self.up else self.arrive_on_device)()
        assert self.device.open == self.cloud.open
        self.every_generation_is_open_or_has_ended_once()

    def send_up(self, message: DeviceMessage) -> None:
        self.device.device_says(message)
        self.up.append(message)

    def send_down(self, message: CloudMessage) -> None:
        self.cloud.cloud_says(message)
        self.down.append(message)


TwoSides.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestTwoSides = TwoSides.TestCase
