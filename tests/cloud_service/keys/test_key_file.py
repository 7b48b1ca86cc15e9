"""The key file: what is kept, what is refused, and that a service follows its changes."""

from __future__ import annotations

import stat
import threading
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.auth import Caller
from cloud_service.cli import ExitCode, main
from cloud_service.keys import file as key_file
from cloud_service.keys.file import KeyFileError, add_key, read_keys, revoke_key
from cloud_service.keys.records import KeyLimits, digest, new_key
from cloud_service.keys.ring import REFRESH, KeyRing

TODAY = date(2026, 11, 21)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.toml"


def test_a_key_is_kept_as_a_hash_with_its_limits_and_only_for_the_owner_to_read(path):
    key = add_key(path, "alice", KeyLimits(max_generations=4, tokens_per_minute=60_000), TODAY)
    assert key.startswith("pd-")
    assert len(key) > 40
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    record = read_keys(path)["alice"]
    assert record.sha256 == digest(key)
    assert record.created == TODAY
    assert record.limits == KeyLimits(max_generations=4, tokens_per_minute=60_000)


def test_names_are_taken_once_and_given_free_again(path):
    first = add_key(path, "alice", KeyLimits(), TODAY)
    with pytest.raises(KeyFileError, match="'alice' already: revoke it"):
        add_key(path, "alice", KeyLimits(), TODAY)
    with pytest.raises(KeyFileError, match=r"no key 'bob' in .*; there are: alice"):
        revoke_key(path, "bob")
    revoke_key(path, "alice")
    assert read_keys(path) == {}
    assert add_key(path, "alice", KeyLimits(), TODAY) != first


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "-a", "a" * 65, 'a"', "ä"])
def test_a_name_that_could_not_stand_in_a_log_line(path, name):
    with pytest.raises(KeyFileError, match="no name for a key"):
        add_key(path, name, KeyLimits(), TODAY)
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("keys = ", "not valid TOML"),
        ('[keys.a]\nkey = "in the clear"', r"keys\.a\.\w+"),
        (f'[keys.a]\nsha256 = "{"f" * 63}"\ncreated = 2026-01-01', r"keys\.a\.sha256"),
        (f'[keys.a]\nsha256 = "{"f" * 64}"\ncreated = 2026-01-01\nmax_grant = 0', r"keys\.a\.max_grant"),
        (f'[keys."a b"]\nsha256 = "{"f" * 64}"\ncreated = 2026-01-01', "no name for a key"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_and_not_quoted(path, text, named):
    path.write_text(text)
    with pytest.raises(KeyFileError, match=named) as refused:
        read_keys(path)
    assert "in the clear" not in str(refused.value)


def test_a_write_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    add_key(path, "alice", KeyLimits(), TODAY)
    before = path.read_text()
    monkeypatch.setattr(key_file.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(KeyFileError, match="disk full"):
        add_key(path, "bob", KeyLimits(), TODAY)
    assert path.read_text() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["keys.toml", "keys.toml.lock"]


def test_two_who_add_at_once_both_stay(path):
    threads = [threading.Thread(target=add_key, args=(path, f"k{n}", KeyLimits(), TODAY)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(read_keys(path)) == [f"k{n}" for n in range(8)]


def test_a_key_tells_whose_it_is_and_what_it_may(path):
    alice = add_key(path, "alice", KeyLimits(max_grant=9), TODAY)
    bob = add_key(path, "bob", KeyLimits(), TODAY)
    ring = KeyRing(path)
    assert ring.identify(f"Bearer {alice}", "1.2.3.4") == Caller("alice", KeyLimits(max_grant=9), digest(alice))
    assert ring.identify(f"bearer {bob}", "1.2.3.4").name == "bob"
    for wrong in (None, "", "Bearer", "Bearer ", f"Bearer {bob[:-1]}", f"Bearer {bob}x", f"Basic {bob}", "Bearer é"):
        assert ring.identify(wrong, "1.2.3.4") is None
    assert digest(bob) not in repr(ring.identify(f"Bearer {bob}", ""))


@given(st.text(max_size=60))
def test_no_text_is_taken_for_a_key(text):
    ring = KeyRing(None)
    ring._file, ring._keys = key_file.Path("/nowhere"), {}
    assert ring.identify(f"Bearer {text}", "") is None


def test_without_a_file_callers_are_told_apart_by_address():
    assert KeyRing(None).identify(None, "127.0.0.1") == Caller("127.0.0.1")


def test_a_ring_follows_its_file_and_a_slip_changes_nothing(path, caplog):
    now = [0.0]
    alice = add_key(path, "alice", KeyLimits(), TODAY)
    ring = KeyRing(path, clock=lambda: now[0])
    caller = ring.identify(f"Bearer {alice}", "")
    bob = add_key(path, "bob", KeyLimits(), TODAY)
    now[0] += REFRESH
    assert ring.identify(f"Bearer {bob}", "").name == "bob"
    content = path.read_text()
    path.write_text("keys = [")
    now[0] += REFRESH
    assert ring.still_valid(caller)
    assert "stay as they were" in caplog.text
    path.write_text(content)
    revoke_key(path, "alice")
    now[0] += REFRESH
    assert not ring.still_valid(caller)
    assert ring.identify(f"Bearer {alice}", "") is None
    add_key(path, "alice", KeyLimits(), TODAY)
    now[0] += REFRESH
    assert not ring.still_valid(caller), "another key under the same name"


def test_keys_are_random():
    assert len({new_key() for _ in range(100)}) == 100


def test_the_command_line(path, capsys, monkeypatch):
    file = ("--file", str(path))
    assert main(["keys", "add", "alice", *file, "--max-grant", "64"]) == ExitCode.OK
    key = capsys.readouterr().out.strip()
    assert KeyRing(path).identify(f"Bearer {key}", "").limits == KeyLimits(max_grant=64)
    monkeypatch.setenv("PD_CLOUD_KEY_FILE", str(path))
    assert main(["keys", "list"]) == ExitCode.OK
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].split() == ["name", "created", *KeyLimits.__slots__]
    assert listed[1].split()[0] == "alice"
    assert listed[1].split()[2:] == ["-", "-", "-", "64"]
    assert main(["keys", "revoke", "alice"]) == ExitCode.OK
    assert main(["keys", "revoke", "alice"]) == ExitCode.BAD_SETTINGS
    assert "no key 'alice'" in capsys.readouterr().err
    assert main(["serve", "--model", "m", "--key-file", str(path.with_name("none.toml"))]) == ExitCode.BAD_SETTINGS
    assert "pd-cloud keys add" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["keys", "add", "bob", *file, "--max-grant", "0"])
