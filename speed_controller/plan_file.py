"""The split configuration's file: TOML text to `SplitConfig`, strictly. Pure: text in, nouns out.

The structs here are the file's layout, in ms and by the names that stand in it; from them comes the published JSON
Schema (`docs/split-config.schema.json`). A key that is not known, or a value that cannot be, is refused by its name.
"""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from speed_controller.errors import SettingError, SplitFileError
from speed_controller.split_config import Bucket, Route, Slo, SplitConfig

VERSION: Final = 1

_Milliseconds = Annotated[float, Meta(gt=0, le=3_600_000)]
_Share = Annotated[float, Meta(gt=0, le=1)]
_Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]
_Some = Annotated[int, Meta(ge=1, le=10_000_000)]
_Measure = Annotated[float, Meta(ge=0)]


class FileSlo(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What users are promised."""

    ttft_p95_ms: Annotated[_Milliseconds | None, Meta(description="95th percentile of the time to first token")] = None
    max_gap_p99_ms: Annotated[
        _Milliseconds | None, Meta(description="99th percentile, over answers, of the largest gap between two tokens")
    ] = None
    quality: Annotated[
        _Share | None, Meta(description="share of the full prompt's quality that a refined prompt keeps, at least")
    ] = None


class FileBucket(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to do with prompts of up to `up_to` tokens, and more than the bucket before."""

    route: Annotated[Literal["device", "split", "cloud"], Meta(description="who answers")]
    up_to: Annotated[_Some | None, Meta(description="longest prompt, in tokens; left out of the last bucket")] = None
    grant: Annotated[_Tokens, Meta(description="output tokens that the cloud gives")] = 0
    keep_ratio: Annotated[
        _Share | None, Meta(description="share of the prompt that refinement keeps; left out: no refinement")
    ] = None
    pace_ms: Annotated[_Milliseconds, Meta(description="preferred time between two shown tokens")] = 50.0
    chunk: Annotated[
        _Some | None, Meta(description="prompt tokens in one of the device's passes; left out: as it sees fit")
    ] = None
    binding: Annotated[str, Meta(description="the constraint that keeps it from being cheaper")] = ""
    predicted: Annotated[dict[str, _Measure], Meta(description="what the planner expects, units in the names")] = {}


class FilePlan(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, rename={"buckets": "bucket"}):
    """A split configuration of pd-device."""

    version: Annotated[Literal[1], Meta(description="of this layout")]
    buckets: Annotated[tuple[FileBucket, ...], Meta(min_length=1, description="by rising up_to")]
    objective: Annotated[str, Meta(description="what was minimised")] = "cloud-seconds"
    max_grant: Annotated[_Tokens, Meta(description="largest grant ever, extensions included")] = 256
    created: Annotated[str, Meta(description="day in UTC, ISO 8601")] = ""
    slo: Annotated[FileSlo, Meta(description="what users are promised")] = msgspec.field(default_factory=FileSlo)
    inputs: Annotated[dict[str, str], Meta(description="what went in: name and sha256")] = {}
    error: Annotated[
        dict[str, _Measure], Meta(description="mean absolute relative error of the predictions, as last validated")
    ] = {}


def read_split_config(text: str) -> SplitConfig:
    """Raises SplitFileError naming the key that is wrong and what was expected."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SplitFileError(f"the split configuration is not valid TOML: {error}") from None
    version = data.get("version")
    if version != VERSION:
        raise SplitFileError(
            f"version is {version!r}; this release reads split configurations of version {VERSION}: "
            "make it anew with pd-plan solve"
        )
    try:
        return _config(msgspec.convert(data, FilePlan))
    except msgspec.ValidationError as error:
        raise SplitFileError(f"the split configuration cannot be used: {error}") from None


def _config(plan: FilePlan) -> SplitConfig:
    try:
        return SplitConfig(
            buckets=tuple(_bucket(number, bucket) for number, bucket in enumerate(plan.buckets)),
            slo=Slo(_seconds(plan.slo.ttft_p95_ms), _seconds(plan.slo.max_gap_p99_ms), plan.slo.quality),
            max_grant=plan.max_grant,
            objective=plan.objective,
            created=plan.created,
            inputs=plan.inputs,
            error=plan.error,
        )
    except SettingError as error:
        raise SplitFileError(f"the split configuration cannot be used: {error}") from None


def _bucket(number: int, bucket: FileBucket) -> Bucket:
    try:
        return Bucket(
            up_to=bucket.up_to,
            route=Route(bucket.route),
            grant=bucket.grant,
            keep_ratio=bucket.keep_ratio,
            pace=bucket.pace_ms / 1000,
            chunk=bucket.chunk,
            binding=bucket.binding,
            predicted=bucket.predicted,
        )
    except SettingError as error:
        raise SplitFileError(f"the split configuration cannot be used: bucket[{number}]: {error}") from None


def file_plan(config: SplitConfig) -> FilePlan:
    """The file's layout of `config`; `read_split_config` of it gives `config` again, to a millionth of a ms."""
    return FilePlan(
        version=VERSION,
        buckets=tuple(
            FileBucket(
                route=bucket.route.value,
                up_to=bucket.up_to,
                grant=bucket.grant,
                keep_ratio=bucket.keep_ratio,
                pace_ms=_milliseconds(bucket.pace),
                chunk=bucket.chunk,
                binding=bucket.binding,
                predicted=dict(bucket.predicted),
            )
            for bucket in config.buckets
        ),
        objective=config.objective,
        max_grant=config.max_grant,
        created=config.created,
        slo=FileSlo(
            None if config.slo.ttft_p95 is None else _milliseconds(config.slo.ttft_p95),
            None if config.slo.max_gap_p99 is None else _milliseconds(config.slo.max_gap_p99),
            config.slo.quality,
        ),
        inputs=dict(config.inputs),
        error=dict(config.error),
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the file."""
    schema = msgspec.json.schema(FilePlan)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pd-device split configuration",
        **schema,
    }


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 6)
