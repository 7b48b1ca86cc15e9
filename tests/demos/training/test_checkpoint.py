"""A released model can be trained on: its weights come back where training keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from demos.training import export_hf
from demos.training.checkpoint import fused

MODEL = Path(__file__).parents[3] / "demos/models/device"


def test_the_shipped_weights_come_back_under_the_training_module_names() -> None:
    config, weights = export_hf.load(MODEL)
    state = fused(config, weights)
    rows = state["blocks.1.qkv.weight"]
    query, key, value = np.split(rows, [config.width, config.width + config.kv_width])
    for part, found in zip("qkv", (query, key, value), strict=True):
        np.testing.assert_array_equal(found, weights[f"model.layers.1.self_attn.{part}_proj.weight"])
    gate, up = np.split(state["blocks.0.gate_up.weight"], 2)
    np.testing.assert_array_equal(gate, weights["model.layers.0.mlp.gate_proj.weight"])
    np.testing.assert_array_equal(up, weights["model.layers.0.mlp.up_proj.weight"])
    assert sum(values.size for values in state.values()) == sum(values.size for values in weights.values())
