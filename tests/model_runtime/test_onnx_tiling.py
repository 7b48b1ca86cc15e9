"""Which compiled lengths a chunk is run in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.onnx.tiling import tiles

LENGTHS = st.sets(st.integers(1, 256), min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("count", "lengths", "expected"),
    [
        (1, (64, 1), (1,)),
        (2, (64, 1), (64,)),  # as long as two passes of one token, and one pass
        (64, (64, 1), (64,)),
        (65, (64, 1), (64, 1)),
        (130, (64, 1), (64, 64, 64)),
        (300, (256, 64, 1), (256, 64)),
        (5, (12,), (12,)),
    ],
)
def test_the_cheapest_passes(count: int, lengths: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert tiles(count, lengths) == expected


@given(count=st.integers(1, 2000), lengths=LENGTHS)
def test_they_hold_all_tokens_and_only_the_last_is_padded(count: int, lengths: tuple[int, ...]) -> None:
    chosen = tiles(count, lengths)
    assert set(chosen) <= set(lengths)
    assert sum(chosen[:-1]) < count <= sum(chosen)
