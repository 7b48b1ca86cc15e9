"""Real windows on a virtual display, led through the tour; the pictures stay in out/chat for whoever wants to look."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [
    pytest.mark.skipif(shutil.which("Xvfb") is None, reason="Xvfb is not installed (apt-get install xvfb)"),
]
pytest.importorskip("PySide6.QtWidgets", reason="Qt, or a library of the system that it needs, is missing")

ROOT = Path(__file__).parents[3]
PICTURES = {
    "empty", "streaming", "timeline", "comparison", "settings", "unplugged", "cloud-lost", "reopened", "error",
}  # fmt: skip


@pytest.mark.parametrize(("scale", "theme"), [(1, "light"), (2, "dark")])
def test_the_tour_passes_and_every_state_is_drawn(scale: int, theme: str) -> None:
    out = ROOT / "out" / "chat" / f"{theme}-{scale}00"
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "QT_QPA_PLATFORM")}
    command = [sys.executable, "-m", "demos.chat.tour", "--scripted", "--out", str(out), "--theme", theme]
    done = subprocess.run(
        [*command, "--scale", str(scale)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    happened = json.loads(done.stdout)
    assert happened["hand_over"]
    assert happened["reopened"]
    assert {path.stem for path in out.glob("*.png")} == PICTURES
    for name in PICTURES - {"settings"}:
        with Image.open(out / f"{name}.png") as picture:
            assert picture.size == (1024 * scale, 640 * scale)
            colours = picture.convert("RGB").getcolors(maxcolors=1 << 24) or []
            most, colour = max(colours)
            # Drawn, not blank; and in its theme.
            assert len(colours) > 200
            assert most < 0.97 * picture.width * picture.height
            assert (sum(colour) > 384) is (theme == "light")
