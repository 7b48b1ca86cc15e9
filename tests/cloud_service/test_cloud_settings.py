"""Where settings come from, and what is refused."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.auth import OpenServiceError, refuse_open_service
from cloud_service.settings import SECRET_FIELDS, Settings, load_settings
from http_api.settings import SettingsError

KEY = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _no_variables_of_the_machine(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("PD_CLOUD_")]:
        monkeypatch.delenv(name)


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path, monkeypatch):
    file = tmp_path / "cloud.toml"
    file.write_text('model = "m.gguf"\nmax_grant = 1\nport = 1\nqueue_depth = 1\n')
    monkeypatch.setenv("PD_CLOUD_MAX_GRANT", "2")
    monkeypatch.setenv("PD_CLOUD_PORT", "2")
    settings = load_settings(file, {"port": "3"})
    assert (settings.queue_depth, settings.max_grant, settings.port) == (1, 2, 3)
    assert settings.model == "m.gguf"


def test_the_address_of_a_store_is_never_a_flag_and_never_shown(monkeypatch):
    monkeypatch.setenv("PD_CLOUD_RATE_LIMIT_STORE", f"redis://:{KEY}@store:6379")
    settings = load_settings(None, {"model": "m"})
    assert settings.rate_limit_store.get_secret_value() == f"redis://:{KEY}@store:6379"
    assert KEY not in repr(settings)
    assert "rate_limit_store" in SECRET_FIELDS


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "model: Field required"),
        ('model = "m"\nmax_grants = 1', "max_grants: Extra inputs"),
        ('model = "m"\nmax_grant = 0', "max_grant: Input should be greater than or equal to 1"),
        ('model = "m"\nport = 70000', "port:"),
        ('model = "m"\nengine = "tpu"', "engine:"),
        ('model = "m"\n[keys]\nalice = "a key, as it once was"', "keys: Extra inputs"),
        ('model = "m"\ntls_key = "k.pem"', "`tls_key` goes with `tls_certificate`"),
        ("model = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, named):
    file = tmp_path / "cloud.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(file, {})
    assert named in str(refused.value)
    assert "once was" not in str(refused.value)


def test_a_file_that_is_not_there_and_a_variable_with_a_typing_error(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="no configuration file"):
        load_settings(tmp_path / "none.toml", {"model": "m"})
    monkeypatch.setenv("PD_CLOUD_MAX_GRANTS", "2")
    with pytest.raises(SettingsError, match="PD_CLOUD_MAX_GRANTS"):
        load_settings(None, {"model": "m"})


def test_providers_are_split_at_commas(monkeypatch):
    assert Settings(model="m", providers="A, B").providers == ("A", "B")
    monkeypatch.setenv("PD_CLOUD_PROVIDERS", "C,D")
    assert load_settings(None, {"model": "m"}).providers == ("C", "D")


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())
    assert set(Settings.model_fields) > SECRET_FIELDS


@pytest.mark.parametrize("host", ["::", "192.168.1.4", "example.org"])
def test_without_keys_the_service_is_not_open_to_the_network(host):
    with pytest.raises(OpenServiceError, match="no keys are configured"):
        refuse_open_service(host, None)
    refuse_open_service(host, Path("keys.toml"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_on_loopback_it_may_be_open(host):
    refuse_open_service(host, None)


@given(st.ip_addresses())
def test_only_loopback_addresses_are_taken_for_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address):
    if address.is_loopback:
        refuse_open_service(str(address), None)
    else:
        with pytest.raises(OpenServiceError):
            refuse_open_service(str(address), None)
