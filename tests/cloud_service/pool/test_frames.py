"""What a service and its engine processes tell each other, and the memory that they share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_service.metrics import Occupancy
from cloud_service.pool import frames, shared_kv
from cloud_service.refinement.contract import Evidence, Needs
from cloud_service.scheduler.jobs import Ended, Failed, Job, Late, Refusal, Seen, Ticket
from model_runtime.sampling import SamplingParams
from model_runtime.testing import ScriptedEngine
from wire_protocol.messages import Usage

JOB = Job("a/b", (1, 2), (3,), 4, SamplingParams(temperature=0.5), ("x",), deadline=3.5, needs=Needs((1, 2), 3, 4))
SEGMENT = frames.Segment("psm_1", 10, 3)
USAGE = Usage(1, 0, 2, 0.5, 1.5, 2.5)

TO_ENGINE = [
    frames.Load({"model": "m", "max_sequences": 3}),
    frames.Offer(1, JOB),
    frames.Offer(1, JOB, SEGMENT),
    frames.Extend(1, 5),
    frames.Progress(1, -2, 0.05, None),
    frames.Leave(1),
    frames.Resume(1),
    frames.Drain(),
]
FROM_ENGINE = [
    frames.Progressing("load", 0.5),
    frames.Loaded(ScriptedEngine().info),
    frames.NotLoaded("no such file"),
    frames.Took(1, Ticket(1, 2.0, 3)),
    frames.TurnedAway(1, Refusal("busy", "full", 12.0)),
    frames.Gave(((1, (5, 6)), (2, (7,)))),
    frames.Handed(1, SEGMENT, USAGE),
    frames.Over(1, ended=Ended("eos", USAGE)),
    frames.Over(1, failed=Failed("engine", "broke", retriable=True)),
    frames.Over(1),
    frames.State(Occupancy(1, 2, 3), 0.5, 0.25, 10, 3),
    frames.Broke("why"),
]


@pytest.mark.parametrize("frame", TO_ENGINE, ids=lambda frame: type(frame).__name__)
def test_what_an_engine_is_told_arrives(frame):
    [raw] = frames.Splitter().feed(frames.encode(frame))
    assert frames.to_engine.decode(raw) == frame


@pytest.mark.parametrize("frame", FROM_ENGINE, ids=lambda frame: type(frame).__name__)
def test_what_an_engine_says_arrives(frame):
    [raw] = frames.Splitter().feed(frames.encode(frame))
    assert frames.from_engine.decode(raw) == frame


def test_how_a_generation_ended():
    assert frames.Over(1, ended=Ended("eos", USAGE)).event == Ended("eos", USAGE)
    assert frames.Over(1).event == Late()


@pytest.mark.parametrize("attention", [None, np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4)])
@pytest.mark.parametrize("logprobs", [None, np.array([0.0, -1.5], np.float32)])
def test_evidence_arrives_as_it_was(attention, logprobs):
    seen = Seen("answer", Evidence(attention, (3, 4), logprobs))
    [raw] = frames.Splitter().feed(frames.encode(frames.Showed.of(7, seen)))
    back = frames.from_engine.decode(raw).seen
    assert (back.stage, back.evidence.layers) == ("answer", (3, 4))
    for one, other in ((back.evidence.attention, attention), (back.evidence.logprobs, logprobs)):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


@settings(max_examples=25)
@given(st.lists(st.sampled_from(FROM_ENGINE), max_size=12), st.data())
def test_frames_are_found_however_the_bytes_are_cut(said, data):
    stream = b"".join(map(frames.encode, said))
    splitter, found = frames.Splitter(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert [frames.from_engine.decode(raw) for raw in found] == said


def test_shared_memory_is_gone_once_its_maker_releases_it():
    segment = shared_kv.put(b"some bytes")
    assert shared_kv.take(segment.name, 10) == b"some bytes"
    assert shared_kv.take(segment.name, 4) == b"some", "reading takes nothing away"
    shared_kv.release(segment)
    with pytest.raises(shared_kv.GoneError, match="gone"):
        shared_kv.take(segment.name, 10)


def test_nothing_at_all_can_be_shared():
    segment = shared_kv.put(b"")
    assert shared_kv.take(segment.name, 0) == b""
    shared_kv.release(segment)
