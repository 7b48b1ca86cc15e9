"""What `pd-doctor` finds, says and returns."""

from __future__ import annotations

import itertools
import json

import pytest

from model_runtime.doctor import cli
from model_runtime.doctor.engines import engines, providers
from model_runtime.doctor.machine import this_machine
from model_runtime.doctor.profile import measure
from model_runtime.testing import ScriptedEngine


def test_this_machine() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.chip
    assert machine.memory_gb is None or machine.memory_gb > 0.1


def test_what_cannot_be_used_says_why_and_how_to_have_it() -> None:
    found = {part.name: part for part in (*engines(), *providers())}
    assert found["onnxruntime"].usable
    assert found["CPUExecutionProvider"].usable
    assert all(part.detail for part in found.values())
    assert not any(part.fix for part in found.values() if part.usable)


def test_speed_is_measured_for_as_long_as_asked() -> None:
    ticks = itertools.count()
    engine, found = measure(lambda: ScriptedEngine(context_length=60), 60, clock=lambda: next(ticks) * 0.5)
    assert engine.info.context_length == 60
    # Each pass takes one tick of this clock, between two readings of it.
    assert found.decode_ms == 500
    assert found.prefill_tokens_per_s == found.chunk / 0.5
    assert 60 <= found.seconds < 63


def test_a_failing_engine_is_shut_down() -> None:
    engine = ScriptedEngine(context_length=60)

    def broken_clock() -> float:
        if broken_clock.calls == 4:  # type: ignore[attr-defined]
            raise RuntimeError("the clock is broken")
        broken_clock.calls += 1  # type: ignore[attr-defined]
        return 0.0

    broken_clock.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="clock"):
        measure(lambda: engine, 1, clock=broken_clock)
    with pytest.raises(Exception, match="shut down"):
        engine.open()


def test_the_command(tiny_model, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(tiny_model("llama"))
    assert cli.main([model, "--seconds", "0.2", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "tokens/s in passes of" in said
    assert "CPUExecutionProvider" in said
    assert cli.main([model, "--seconds", "0.2", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measured"]["passes"] >= 2
    assert found["nodes"].startswith("CPUExecutionProvider ")
    assert cli.main([model, "--provider", "NoSuchProvider", "--seconds", "0.2"]) == 1
    assert "NoSuchProvider is not available" in capsys.readouterr().out
    assert cli.main(["--seconds", "0"]) == 0
