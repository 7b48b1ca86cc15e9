"""Where requests come from: traces of real services, generators, and what is made of them."""

from planner.workloads.generators import generate
from planner.workloads.opening import open_workload
from planner.workloads.shaping import first, rescale, sample, window
from planner.workloads.summary import Summary, summarize
from planner.workloads.traces import FORMATS, open_trace

__all__ = [
    "FORMATS",
    "Summary",
    "first",
    "generate",
    "open_trace",
    "open_workload",
    "rescale",
    "sample",
    "summarize",
    "window",
]
