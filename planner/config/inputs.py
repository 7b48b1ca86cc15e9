"""What went into a plan, so that a reader can tell whether it is the same."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint(name: str, text: str) -> str:
    """`name sha256:…` of `text`."""
    return f"{name} sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def fingerprint_file(path: Path) -> str:
    """The same of a file's bytes, however long it is."""
    with path.open("rb") as file:
        return f"{path.name} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
