from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_runtime.errors import ModelFormatError, ModelNotFoundError
from model_runtime.profiles import link_names, load_link, load_profile, profile_names, profile_text

GOOD: dict[str, Any] = {
    "name": "x",
    "title": "X",
    "source": "made up",
    "prefill_tokens_per_s": [[100, 1000], [1000, 500]],
    "decode_ms": [[1, 10]],
}


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_say_where_they_come_from(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert "https://" in profile.source
    assert any(text.startswith("jitter:") for text in profile.approximate)


def test_the_phone_has_the_published_figures() -> None:
    """Time to first token of 88.195 ms for a block of 128 and 2,822.25 ms for 4,096; 23.4718 tokens/s."""
    phone = load_profile("phone-snapdragon-8-elite")
    assert phone.pass_ms([(0, 128)]) == pytest.approx(88.195, rel=1e-4)
    assert phone.pass_ms([(0, 4096)]) == pytest.approx(2822.25, rel=1e-4)
    assert 1000 / phone.pass_ms([(2000, 1)]) == pytest.approx(23.4718, rel=1e-4)


def test_the_datacentre_gpu_has_the_published_figures() -> None:
    """8B F16: 10,342.63 tokens/s for a prompt of 1,024; 67.79 tokens/s while 1,024 are generated."""
    gpu = load_profile("datacentre-h100-pcie")
    assert 1024 / gpu.pass_ms([(0, 1024)]) * 1000 == pytest.approx(10342.63, rel=1e-4)
    generated = sum(gpu.pass_ms([(context, 1)]) for context in range(1, 1025))
    assert 1024 / generated * 1000 == pytest.approx(67.79, rel=2e-3)


def test_loads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD))
    assert load_profile(path).prompt_ms(100) == pytest.approx(100)
    assert load_profile(str(path)).batch_share is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, r"\$\.source"),
        ({"decode_ms": []}, r"\$\.decode_ms"),
        ({"decode_ms": [[1, -10]]}, r"\$\.decode_ms"),
        ({"decode_ms": [[10, 1], [10, 2]]}, "decode_ms must have rising token counts"),
        ({"prefill_tokens_per_s": [[100, 100], [200, 1000]]}, "a longer prompt takes less time"),
        ({"jitter": 1.5}, r"\$\.jitter"),
        ({"speed": 1}, "unknown field `speed`"),
    ],
)
def test_a_wrong_profile_is_refused_naming_what_is_wrong(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ModelFormatError, match=message):
        load_profile(path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelNotFoundError, match="phone-snapdragon-8-elite"):
        load_profile("no-such-phone")


@pytest.mark.parametrize("name", [name for name in link_names() if name != "loopback"])
def test_shipped_links_say_where_they_come_from_and_what_is_not_published(name: str) -> None:
    link = load_link(name)
    assert link.name == name
    assert any(year in link.source for year in ("2015", "2022", "2024", "2025"))
    assert link.measured is None
    assert any("jitter_ms" in text for text in link.approximate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rtt_ms": -1}, r"\$\.rtt_ms"),
        ({"loss": 1}, r"\$\.loss"),
        ({"speed": 1}, "unknown field `speed`"),
        ({"version": 2}, r"\$\.version"),
        ({"measured": {"date": "yesterday", "machine": "m", "command": "c"}}, r"\$\.measured\.date"),
    ],
)
def test_a_wrong_link_is_refused_naming_what_is_wrong(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"name": "x", "rtt_ms": 10} | change))
    with pytest.raises(ModelFormatError, match=message):
        load_link(path)


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_is_written_as_it_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "again.json"
    path.write_text(profile_text(load_profile(name)))
    assert load_profile(path) == load_profile(name)
    assert '"version": 1' in path.read_text()
