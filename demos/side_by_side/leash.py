"""`python -m demos.side_by_side.leash MODULE ARGUMENT…`: runs MODULE, and ends it when its parent is gone.

However the parent goes, by a crash or by SIGKILL, the system closes its end of the pipe that is this process's standard
input: the same on Linux, macOS and Windows, where there is no such thing as dying with a parent.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

#: Seconds to end in good order.
_GRACE = 5.0
#: What a process ends with that SIGTERM ended.
_TERMINATED = 128 + signal.SIGTERM


def hold() -> None:
    """From now on the process ends once standard input does."""
    threading.Thread(target=_watch, args=(sys.__stdin__.fileno() if sys.__stdin__ else 0,), daemon=True).start()


def _watch(handle: int) -> None:
    # Not by sys.stdin, whose lock a reading thread would hold when the interpreter ends.
    while os.read(handle, 4096):
        pass
    signal.raise_signal(signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(_TERMINATED)


def main() -> None:
    """Its arguments become the module's."""
    module, *sys.argv[1:] = sys.argv[1:]
    hold()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
