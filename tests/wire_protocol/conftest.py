"""What the tests of wire_protocol share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recorded() -> dict[str, dict[str, str]]:
    """Frames as they were sent by the first release, by name; a name begins with the message's type."""
    vectors: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "recorded_frames.json").read_text("utf-8"))
    return vectors
