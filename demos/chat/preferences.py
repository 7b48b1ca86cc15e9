"""The settings' file: readable, private, and never the reason why the program does not start."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import msgspec
import platformdirs

from demos.chat.viewmodel.settings import Settings


def data_folder() -> Path:
    """Where this system keeps a program's data of a user."""
    return Path(platformdirs.user_data_dir("pd-chat", appauthor=False))


def load(path: Path, default: Settings) -> tuple[Settings, str | None]:
    """The settings, and what was wrong with the file; a file that is not there is no fault."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings), None
    except FileNotFoundError:
        return default, None
    except (OSError, msgspec.DecodeError) as error:
        return default, f"{path} cannot be read ({error}); the defaults are used until you save settings again"


def save(path: Path, settings: Settings) -> None:
    """Whole or not at all; readable by its owner only, as it may hold a key. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".settings-")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
