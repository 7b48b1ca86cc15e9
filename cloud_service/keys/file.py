"""The key file: TOML, one `[keys.NAME]` table for each key. Written whole or not at all, readable by its owner only."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from cloud_service.keys.records import KeyLimits, KeyRecord, digest, new_key

#: A name stands in logs, metrics and rate-limit keys.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_HEADER = "# API keys of pd-cloud, as hashes: `pd-cloud keys --help`. Limits may be edited by hand.\n"

#: How long a second command waits for one that is writing, in seconds.
_PATIENCE = 10.0


class KeyFileError(Exception):
    """The key file, or what is to be done with it, is not usable; the message says what to do."""


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: dict[str, KeyRecord] = {}


def read_keys(path: Path) -> dict[str, KeyRecord]:
    """The records by name. Raises KeyFileError, which never quotes the file."""
    try:
        content = _Content.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise KeyFileError(f"no key file at {path}: make one with `pd-cloud keys add NAME --file {path}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise KeyFileError(f"{path} is not valid TOML: {error}") from None
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise KeyFileError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    for name in content.keys:
        _check_name(name)
    return content.keys


def add_key(path: Path, name: str, limits: KeyLimits, today: date) -> str:
    """Make a key, keep its hash in `path` (which is made where it is missing), return the key. Raises KeyFileError."""
    _check_name(name)
    key = new_key()
    with _changing(path) as keys:
        if name in keys:
            raise KeyFileError(f"there is a key {name!r} already: revoke it first, or choose another name")
        keys[name] = KeyRecord(
            sha256=digest(key),
            created=today,
            max_generations=limits.max_generations,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            max_grant=limits.max_grant,
        )
    return key


def revoke_key(path: Path, name: str) -> None:
    """Forget a key. Raises KeyFileError."""
    with _changing(path) as keys:
        if name not in keys:
            raise KeyFileError(f"there is no key {name!r} in {path}; there are: {', '.join(sorted(keys)) or 'none'}")
        del keys[name]


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[dict[str, KeyRecord]]:
    """The records, written back on leaving unless that raises; one process at a time."""
    try:
        with FileLock(path.with_name(path.name + ".lock"), timeout=_PATIENCE):
            keys = read_keys(path) if path.exists() else {}
            yield keys
            _write(path, keys)
    except Timeout:
        raise KeyFileError(f"{path} is being changed by another process: try again") from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error}") from None


def _write(path: Path, keys: Mapping[str, KeyRecord]) -> None:
    tables: dict[str, Any] = {name: record.model_dump(exclude_none=True) for name, record in keys.items()}
    text = f"{_HEADER}\n{tomli_w.dumps({'keys': tables})}"
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise KeyFileError(f"{name!r} is no name for a key: expected up to 64 letters, digits and any of _ . -")
