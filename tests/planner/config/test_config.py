from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from model_runtime.profiles import load_link, load_profile
from planner.config import fingerprint, fingerprint_file, split_config, to_toml
from planner.config.__main__ import NAME, main
from planner.core import CloudProfile, Slo
from planner.cost import World
from planner.optimizer import Limits, Plan, Problem, make_buckets, solve
from planner.workloads import generate
from speed_controller.plan_file import json_schema, read_split_config

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def plan() -> Plan:
    world = World(
        load_profile("phone-snapdragon-8-elite"),
        CloudProfile(load_profile("datacentre-h100-pcie"), instances=2, max_sequences=32),
        load_link("wifi-fibre"),
    )
    traffic, summary = make_buckets(generate("poisson:requests=500,prompt=800~0.5"), 3)
    return solve(Problem(world, tuple(traffic), summary.rate, Limits(Slo(1.0, 0.1))))


def test_the_file_is_read_as_it_was_meant(plan: Plan) -> None:
    config = split_config(plan, created="2026-11-21", inputs={"device": "x sha256:0"}, error={"ttft_ms": 0.04})
    assert read_split_config(to_toml(config)) == config
    for option, bucket in zip(plan.options, config.buckets, strict=True):
        assert (bucket.grant, bucket.route) == (option.decision.grant, option.decision.route)
        assert bucket.predicted["max_gap_p99_ms"] == pytest.approx(option.worst.max_gap_p99 * 1000, rel=1e-4)


def test_the_file_explains_itself_and_keeps_the_published_schema(plan: Plan) -> None:
    text = to_toml(split_config(plan))
    assert "# output tokens from the cloud" in text
    assert text.startswith("# How pd-device divides answers")
    jsonschema.validate(tomllib.loads(text), json_schema())


def test_the_schema_refuses_what_the_reader_refuses(plan: Plan) -> None:
    data = tomllib.loads(to_toml(split_config(plan)))
    changes: list[dict[str, Any]] = [{"version": 2}, {"bucket": []}, {"speed": 1}, {"max_grant": -1}]
    for change in changes:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data | change, json_schema())


def test_the_published_schema_is_the_readers() -> None:
    assert json.loads((DOCS / NAME).read_text(encoding="utf-8")) == json_schema()
    assert main(["check", str(DOCS)]) == 0


def test_a_stale_schema_is_found(tmp_path: Path) -> None:
    assert main(["check", str(tmp_path)]) == 1
    assert main(["write", str(tmp_path)]) == 0
    assert main(["check", str(tmp_path)]) == 0
    assert main([]) == 2


def test_fingerprints_are_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint("x", "abc") == f"x sha256:{digest}"
    assert fingerprint_file(path) == f"trace.csv sha256:{digest}"
