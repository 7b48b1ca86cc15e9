from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speed_controller import Bucket, PaceSettings, Route, SettingError, Slo, SplitConfig, SplitFileError
from speed_controller.plan_file import file_plan, json_schema, read_split_config

GOOD = """
version = 1
max_grant = 64

[slo]
ttft_p95_ms = 900

[[bucket]]
up_to = 512
route = "device"

[[bucket]]
up_to = 2048
route = "split"
grant = 12
keep_ratio = 0.5
pace_ms = 60
chunk = 256
binding = "max_gap_p99"
predicted = {ttft_p95_ms = 412.5}

[[bucket]]
route = "cloud"
grant = 64
"""


def test_a_prompt_falls_into_its_bucket() -> None:
    config = read_split_config(GOOD)
    assert [config.bucket(tokens).route for tokens in (1, 512, 513, 2048, 2049, 10**9)] == [
        Route.DEVICE, Route.DEVICE, Route.SPLIT, Route.SPLIT, Route.CLOUD, Route.CLOUD,
    ]  # fmt: skip
    assert config.slo == Slo(ttft_p95=0.9)
    assert config.bucket(600).predicted == {"ttft_p95_ms": 412.5}


def test_a_bucket_gives_the_settings_of_the_sdk() -> None:
    config = read_split_config(GOOD)
    settings = config.bucket(600).settings(PaceSettings(), config.max_grant)
    assert (settings.grant, settings.keep_ratio, settings.chunk, settings.max_grant) == (12, 0.5, 256, 64)
    assert settings.pace.pace == 0.06
    assert settings.pace.pace_min <= 0.06 <= settings.pace.pace_max


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version = 1", "version = 2", "version is 2; this release reads"),
        ("version = 1", "", "version is None"),
        ("max_grant = 64", "max_grants = 64", "unknown field `max_grants`"),
        ("grant = 12", "grannt = 12", r"unknown field `grannt` - at `\$.bucket\[1\]`"),
        ("grant = 12", "grant = -1", r">= 0 - at `\$.bucket\[1\].grant`"),
        ("grant = 12", "grant = 65", "max_grant is 64; expected at least the largest bucket's grant, 65"),
        ("grant = 12", 'grant = "many"', r"Expected `int`, got `str` - at `\$.bucket\[1\].grant`"),
        ("keep_ratio = 0.5", "keep_ratio = 1.5", r"<= 1.0 - at `\$.bucket\[1\].keep_ratio`"),
        ("pace_ms = 60", "pace_ms = 0", r"\$.bucket\[1\].pace_ms"),
        ("up_to = 2048", "up_to = 100", "up_to is .*expected limits that rise"),
        ("up_to = 512\nroute", "route", "up_to is .*expected limits that rise"),
        ('route = "cloud"', 'route = "cloud"\nup_to = 9999', "the last one without up_to"),
        (
            'route = "device"',
            'route = "device"\ngrant = 3',
            r"bucket\[0\]: grant is 3; expected 0 for the route 'device'",
        ),
        ('route = "cloud"', 'route = "moon"', "Invalid enum value 'moon'"),
        ("[slo]", "[slo", "not valid TOML"),
        ("ttft_p95_ms = 900", "ttft_p95_ms = inf", r"\$.slo.ttft_p95_ms"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(old: str, new: str, message: str) -> None:
    with pytest.raises(SplitFileError, match=message):
        read_split_config(GOOD.replace(old, new, 1))


def test_a_configuration_needs_a_last_bucket() -> None:
    with pytest.raises(SettingError, match="buckets"):
        SplitConfig(())


buckets = st.builds(
    Bucket,
    up_to=st.none(),
    route=st.just(Route.SPLIT),
    grant=st.integers(0, 200),
    keep_ratio=st.none() | st.floats(0.01, 1),
    pace=st.integers(1, 2000).map(lambda milliseconds: milliseconds / 1000),
    chunk=st.none() | st.integers(1, 4096),
    predicted=st.dictionaries(st.sampled_from(["ttft_p95_ms", "cloud_seconds"]), st.floats(0, 1e6)),
)


@given(last=buckets, limits=st.lists(st.integers(1, 100_000), unique=True, max_size=4), created=st.text(max_size=5))
def test_a_file_says_all_that_a_configuration_is(last: Bucket, limits: list[int], created: str) -> None:
    shorter = tuple(Bucket(limit, Route.DEVICE) for limit in sorted(limits))
    config = SplitConfig((*shorter, last), Slo(1.5, None, 0.9), created=created, error={"ttft": 0.1})
    text = msgspec.toml.encode(msgspec.to_builtins(file_plan(config))).decode()
    assert read_split_config(text) == config


def test_the_schema_names_every_key() -> None:
    schema = json_schema()
    assert set(schema["$defs"]["FileBucket"]["properties"]) >= {"up_to", "route", "grant", "keep_ratio", "pace_ms"}
    assert schema["$defs"]["FileBucket"]["additionalProperties"] is False
