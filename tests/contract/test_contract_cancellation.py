"""Cancellation: prompt, and as if the pass had never been asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_runtime.core import AttentionTap, Cancellation, Chunk, Logits
from model_runtime.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import Case

TEXT = [int(token) for token in np.random.default_rng(6).integers(0, 258, 120)]


class CancelledInside(Cancellation):
    """Cancelled at the moment that the engine has begun the pass and asks to be told."""

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        forget = super().on_cancel(callback)
        self.cancel()
        return forget


def same_as_before(case: Case, sequence: int, tokens: list[int]) -> None:
    assert case.engine.length(sequence) == len(tokens)
    [result] = case.engine.forward([Chunk(sequence, [11])])
    if case.exact is not None:
        exact = case.exact.run([*tokens, 11])[0][-1]
        np.testing.assert_allclose(result.logits[0], exact, atol=case.tolerance, rtol=0)


def test_cancelled_before_the_pass(case: Case) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with case.sequences(2) as [first, second]:
        case.engine.forward([Chunk(first, TEXT[:20])])
        for chunks in ([Chunk(first, TEXT[20:])], [Chunk(first, [1]), Chunk(second, [2])]):
            with pytest.raises(Cancelled):
                case.engine.forward(chunks, cancellation)
            assert case.engine.length(second) == 0
        same_as_before(case, first, TEXT[:20])


@pytest.mark.parametrize("tap", [None, AttentionTap((0,), 4)], ids=["plain", "tapped"])
def test_cancelled_inside_the_pass(model_case: Case, tap: AttentionTap | None) -> None:
    case = model_case
    if tap is not None and not case.engine.info.capabilities.attention_tap:
        pytest.skip(f"{case.name} gives no attention: its capabilities say so")
    assert case.engine.info.capabilities.abort_inside_pass
    with case.sequences(3) as [first, second, third]:
        for each in (first, second):
            case.engine.forward([Chunk(each, TEXT[:20])])
        # A pass of a prefill and of two sequences that decode together.
        chunks = [Chunk(third, TEXT, tap=tap), Chunk(first, [1]), Chunk(second, [2])]
        with pytest.raises(Cancelled):
            case.engine.forward(chunks, CancelledInside())
        assert case.engine.length(third) == 0
        same_as_before(case, first, TEXT[:20])
        same_as_before(case, second, TEXT[:20])
        same_as_before(case, third, [])


def test_cancelled_from_another_thread_during_a_chunked_prefill(case: Case) -> None:
    """Whenever it comes, the chunks before it are in and the one it hit is not."""
    cancellation, started = Cancellation(), threading.Event()
    done: list[int] = []

    def prefill_for_ever(sequence: int) -> None:
        while True:
            case.engine.forward([Chunk(sequence, TEXT[:30], Logits.NONE)], cancellation)
            done.extend(TEXT[:30])
            if len(done) > 100:
                case.engine.truncate(sequence, 0)
                done.clear()
            started.set()

    def cancel_soon() -> None:
        started.wait()
        cancellation.cancel()

    thread = threading.Thread(target=cancel_soon)
    thread.start()
    with case.sequences() as [sequence]:
        with pytest.raises(Cancelled):
            prefill_for_ever(sequence)
        same_as_before(case, sequence, done)
    thread.join()


def test_a_cancellation_used_before_does_not_touch_later_passes(case: Case) -> None:
    cancellation = Cancellation()
    with case.sequences() as [sequence]:
        case.engine.forward([Chunk(sequence, TEXT[:20])], cancellation)
        cancellation.cancel()
        same_as_before(case, sequence, TEXT[:20])
