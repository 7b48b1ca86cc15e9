"""A plan as a split configuration, and that as TOML which a person can read and change."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import tomlkit
from tomlkit.items import Table

from planner.core import Bucket, Route, SplitConfig
from planner.optimizer.problem import Option
from planner.optimizer.solve import Plan
from speed_controller.plan_file import file_plan

_HEAD = """\
How pd-device divides answers between the cloud and the device, by the prompt's length.
Made by pd-plan solve; may be changed by hand. The SDK loads it with HybridClient(split="…"), the service
checks grants against it with --split-config. Keys that are not known are refused.
"""

_COMMENTS = {
    "max_grant": "output tokens that the cloud may ever give to one answer, extensions included",
    "slo": "what users are promised",
    "inputs": "what it was made from",
    "error": "mean absolute relative error of the predictions, as found by pd-plan validate",
    "up_to": "prompt tokens; the last bucket has no end",
    "route": "device, split or cloud",
    "grant": "output tokens from the cloud",
    "keep_ratio": "share of the prompt that refinement keeps",
    "pace_ms": "preferred time between two shown tokens",
    "chunk": "prompt tokens in one of the device's passes",
    "binding": "what keeps it from being cheaper",
}


def split_config(
    plan: Plan, *, created: str = "", inputs: Mapping[str, str] | None = None, error: Mapping[str, float] | None = None
) -> SplitConfig:
    """What a plan decides, and what it expects."""
    limits = plan.problem.limits
    return SplitConfig(
        buckets=tuple(
            _bucket(traffic.up_to, option, binding)
            for traffic, option, binding in zip(plan.problem.traffic, plan.options, plan.binding, strict=True)
        ),
        slo=limits.slo,
        max_grant=max(limits.max_grant, *(option.decision.grant for option in plan.options)),
        objective=plan.problem.objective.name,
        created=created,
        inputs=dict(inputs or {}),
        error=dict(error or {}),
    )


def _bucket(up_to: int | None, option: Option, binding: str) -> Bucket:
    decision, mean, worst = option.decision, option.mean, option.worst
    predicted = {
        "ttft_mean_ms": mean.ttft_mean * 1000,
        "ttft_p95_ms": worst.ttft_p95 * 1000,
        "max_gap_p99_ms": worst.max_gap_p99 * 1000,
        "cloud_seconds": mean.cloud_seconds,
        "cloud_tokens": mean.cloud_tokens,
    }
    if mean.energy is not None:
        predicted["device_joules"] = mean.energy
    return Bucket(
        up_to=up_to,
        route=decision.route,
        grant=decision.grant if decision.route is Route.SPLIT else 0,
        keep_ratio=decision.keep_ratio,
        pace=round(decision.pace, 6),
        chunk=decision.chunk,
        binding=binding,
        predicted={name: float(f"{value:.5g}") for name, value in predicted.items()},
    )


def to_toml(config: SplitConfig) -> str:
    """The text that `speed_controller.plan_file.read_split_config` reads."""
    values = msgspec.to_builtins(file_plan(config))
    document = tomlkit.document()
    for line in _HEAD.splitlines():
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    buckets = values.pop("bucket")
    for key in ("version", "created", "objective", "max_grant"):
        if key in values:
            document.add(key, _item(key, values.pop(key)))
    for key in ("slo", "inputs", "error"):
        if values.get(key):
            table = _table(values.pop(key))
            table.comment(_COMMENTS[key])
            document.add(key, table)
    tables = tomlkit.aot()
    for bucket in buckets:
        predicted = bucket.pop("predicted", None)
        table = _table(bucket)
        if predicted:
            table.add("predicted", _table(predicted))
        tables.append(table)
    document.add("bucket", tables)
    return tomlkit.dumps(document)


def _table(values: Mapping[str, object]) -> Table:
    table = tomlkit.table()
    for key, value in values.items():
        table.add(key, _item(key, value))
    return table


def _item(key: str, value: object) -> tomlkit.items.Item:
    item = tomlkit.item(value)
    if key in _COMMENTS:
        item.comment(_COMMENTS[key])
    return item
