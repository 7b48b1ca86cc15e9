"""A workload by what stands on the command line: a file, or a generator's parameters."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from planner.core import Workload
from planner.workloads.generators import Process, generate
from planner.workloads.sharegpt import open_conversations
from planner.workloads.traces import open_trace, recognise


def open_workload(text: str | Path, layout: str | None = None, *, rate: float = 1.0, seed: int = 0) -> Workload:
    """`text`: a trace's path, or `poisson:…`, `gamma:…`, `diurnal:…`. `layout`: see FORMATS; by default told by the
    file. `rate` and `seed`: arrivals of conversations, which have none. Raises WorkloadError."""
    if isinstance(text, str) and text.partition(":")[0] in get_args(Process):
        return generate(text)
    if (layout or recognise(text)) == "sharegpt":
        return open_conversations(text, rate=rate, seed=seed)
    return open_trace(text, layout)
