"""The chip and the memory, as the operating system tells."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_CPUINFO, _MEMINFO, _DEVICE_TREE = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/proc/device-tree/model")


@dataclass(frozen=True, slots=True)
class Machine:
    """`cores`: those this process may run on. `memory_gb`: of the machine, 10^9 bytes; None where it does not say."""

    system: str
    chip: str
    cores: int
    memory_gb: float | None
    python: str


def this_machine() -> Machine:
    return Machine(
        system=f"{platform.system()} {platform.release()} on {platform.machine()}",
        chip=_chip(),
        cores=_cores(),
        memory_gb=_memory_gb(),
        python=platform.python_version(),
    )


def _chip() -> str:
    for path, pattern in ((_DEVICE_TREE, r"^([^\0]+)"), (_CPUINFO, r"^(?:model name|Hardware)\s*:\s*(.+)$")):
        try:
            found = re.search(pattern, path.read_text(errors="replace"), re.MULTILINE)
        except OSError:
            continue
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float | None:
    try:
        found = re.search(r"^MemTotal:\s*(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024 / 1e9
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return None
