"""A display that nobody sees: for pictures and tests on machines without a screen."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRACE_S = 5.0


class NoDisplayError(Exception):
    """There is neither a display nor Xvfb."""


@contextmanager
def virtual_display(width: int, height: int) -> Iterator[str]:
    """The name of a display of Xvfb, gone with the block. Raises NoDisplayError."""
    program = shutil.which("Xvfb")
    if program is None:
        raise NoDisplayError("Xvfb is not installed: on Debian and Ubuntu, apt-get install xvfb")
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [program, "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as said:
            number = said.readline().strip()
        if not number:
            raise NoDisplayError(f"Xvfb ended with code {process.wait()} before it had a display")
        yield f":{number}"
    finally:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
