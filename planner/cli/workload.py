"""`pd-plan workload`."""

from __future__ import annotations

import argparse
from typing import Any

from planner.cli.inputs import add_workload, read_workload
from planner.cli.output import counted, emit, note, say, table
from planner.workloads import FORMATS, summarize

_DESCRIPTION = (
    "Read a trace, or generate one, and say what it is like. Rows that are no requests are counted and shown."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    known = "\n".join(f"  {name:<9} {what}" for name, what in FORMATS.items())
    parser.epilog = f"""\
formats:
{known}

examples:
  pd-plan workload azure_llm_2023_conv.csv
  pd-plan workload gamma:rate=2,cv=3,prompt=1024~0.8,output=50-400,requests=5000 --json
"""
    add_workload(parser, positional=True)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> int:
    workload = read_workload(given).through(lambda requests: counted(requests, "requests"), "read")
    summary = summarize(workload)
    found: dict[str, Any] = summary.as_json() | {"source": read_workload(given).source}
    for example in summary.skipped.examples:
        note(f"skipped {example}")
    if summary.skipped.count > len(summary.skipped.examples):
        note(f"… and {summary.skipped.count - len(summary.skipped.examples):,} more rows that are no requests")
    if given.json:
        emit(found)
        return 0
    say(found["source"])
    cv = "-" if found["arrival_cv"] is None else f"{found['arrival_cv']:.2f}"
    say(
        f"{summary.requests:,} requests in {summary.duration:,.0f} s: {summary.rate:.3g}/s, coefficient of variation "
        f"of the time between them {cv}; {summary.skipped.count:,} rows are no requests; "
        f"{summary.shared_prefix:.1%} of the prefix blocks were seen before"
    )
    if summary.requests:
        columns = ["mean", "p50", "p90", "p95", "p99", "max"]
        rows = [
            [name, *(f"{found[f'{name}_tokens'][column]:,.0f}" for column in columns)] for name in ("prompt", "output")
        ]
        table(["tokens", *columns], rows)
    return 0
