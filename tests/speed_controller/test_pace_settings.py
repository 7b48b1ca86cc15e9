from __future__ import annotations

import math
from typing import Any

import pytest

from speed_controller import PaceSettings, SettingError, SplitSettings


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("mode", {"mode": "even"}),
        ("finish", {"finish": "stop"}),
        ("pace", {"pace": 0.0}),
        ("pace", {"pace": math.nan}),
        ("pace_min", {"pace_min": -1.0}),
        ("pace_min", {"pace_min": 0.06}),
        ("pace_max", {"pace_max": 0.04}),
        ("pace_max", {"pace_max": math.inf}),
        ("max_change", {"max_change": 0.0}),
        ("max_change", {"max_change": 1.5}),
    ],
)
def test_a_bad_pace_setting_is_named(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=rf"^{field} is ") as error:
        PaceSettings(**values)
    assert error.value.field == field
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("grant", {"grant": -1}),
        ("grant", {"grant": 300}),
        ("keep_ratio", {"keep_ratio": 0.0}),
        ("keep_ratio", {"keep_ratio": 1.01}),
        ("chunk", {"chunk": 0}),
        ("max_grant", {"max_grant": -1}),
        ("refine_from", {"refine_from": -1}),
        ("keep_at_least", {"keep_at_least": -1}),
    ],
)
def test_a_bad_split_setting_is_named(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=rf"^{field} is ") as error:
        SplitSettings(**values)
    assert error.value.field == field


def test_the_edges_are_allowed() -> None:
    PaceSettings(pace=0.05, pace_min=0.05, pace_max=0.05, max_change=1.0)
    SplitSettings(grant=0, max_grant=0, keep_ratio=1.0, chunk=1)


@pytest.mark.parametrize(
    ("split", "prompt_tokens", "ratio"),
    [
        (SplitSettings(), 4_000, 0.5),
        (SplitSettings(), 768, 0.5),
        (SplitSettings(), 640, 0.6),
        (SplitSettings(), 512, 0.75),
        (SplitSettings(), 511, None),
        (SplitSettings(refine_from=0), 384, None),
        (SplitSettings(refine_from=0), 0, None),
        (SplitSettings(refine_from=0, keep_at_least=0), 100, 0.5),
        (SplitSettings(keep_ratio=None), 4_000, None),
        (SplitSettings(keep_ratio=1.0), 4_000, None),
    ],
)
def test_the_share_to_keep_is_larger_for_short_prompts(
    split: SplitSettings, prompt_tokens: int, ratio: float | None
) -> None:
    assert split.keep_ratio_for(prompt_tokens) == ratio
