"""`pd-plan compare`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from planner.cli.inputs import add_profiles, add_workload, provenance, read_profiles, read_workload
from planner.cli.output import emit, note, say, table
from planner.compare.html import as_html, findings
from planner.compare.report import as_csv, as_json, rows
from planner.compare.run import POLICIES, SIMULATED_KEEP_RATIO, Plan, compare
from planner.core import Slo, SplitConfig
from planner.errors import PlannerError
from planner.policies.planned import PlannedSettings
from planner.simulator.world import Setup
from speed_controller.plan_file import read_split_config

_DESCRIPTION = """\
Replay one workload against one cloud under several policies: on the device, in the cloud, DiSCo (device- and server-
constrained), KV shipping, the split without and with refinement. Prints what users see, what the cloud pays, and the
highest rate at which the promise to users is kept (goodput), beside its bound. docs/planner.md says how to read it.
"""
_EPILOG = """\
example:
  pd-plan compare --workload azure_llm_2023_conv.csv --device phone-snapdragon-8-elite --cloud datacentre-h100-pcie \\
      --instances 4 --link 5g --html report.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    add_workload(parser)
    add_profiles(parser)
    add_simulated(parser)
    what = parser.add_argument_group("what is compared")
    what.add_argument("--policies", default=",".join(POLICIES), metavar="A,B,…", help="(%(default)s)")
    what.add_argument(
        "--disco-budget", type=float, default=0.5, metavar="SHARE",
        help="of the prompt tokens that DiSCo's constrained side may read (%(default)s)",
    )  # fmt: skip
    what.add_argument("--ttft-p95-ms", type=float, default=1000.0, metavar="MS", help="promised (%(default)s)")
    what.add_argument("--max-gap-p99-ms", type=float, default=100.0, metavar="MS", help="promised (%(default)s)")
    how = parser.add_argument_group("how closely")
    how.add_argument(
        "--goodput-requests", type=int, default=1_000, metavar="N",
        help="first requests of the workload that the search for goodput replays; 0: no search (%(default)s)",
    )  # fmt: skip
    how.add_argument(
        "--played", type=int, default=400, metavar="N",
        help="split answers of a run that are played token by token, for gaps, TPOT and stalls (%(default)s)",
    )  # fmt: skip
    how.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (%(default)s)")
    out = parser.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="print one JSON object")
    out.add_argument("--csv", type=Path, metavar="FILE", help="write a line for each policy")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots")


def add_simulated(parser: argparse.ArgumentParser) -> None:
    """What every simulation takes."""
    group = parser.add_argument_group("what is simulated")
    group.add_argument("--queue-depth", type=int, default=64, metavar="N", help="may wait per instance (%(default)s)")
    group.add_argument(
        "--prefix-cache-tokens", type=int, default=0, metavar="N", help="kept per instance; 0: no cache (%(default)s)"
    )
    group.add_argument("--plan", type=Path, metavar="FILE", help="a split configuration, as pd-plan solve writes it")
    group.add_argument(
        "--keep-ratio", type=float, default=SIMULATED_KEEP_RATIO, metavar="SHARE",
        help="share that refinement keeps, where no plan says (%(default)s)",
    )  # fmt: skip


def read_setup(given: argparse.Namespace) -> tuple[Setup, SplitConfig | None]:
    """Raises PlannerError, LoadError, SpeedControllerError."""
    import dataclasses

    device, cloud, link = read_profiles(given)
    try:
        cloud = dataclasses.replace(cloud, queue_depth=given.queue_depth, prefix_cache_tokens=given.prefix_cache_tokens)
    except ValueError as error:
        raise PlannerError(str(error)) from None
    config = None
    if given.plan:
        try:
            config = read_split_config(given.plan.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlannerError(f"cannot read {given.plan}: {error.strerror}") from None
    setup = Setup(device, link, cloud, seed=given.seed)
    return (dataclasses.replace(setup, split=PlannedSettings(config)) if config else setup), config


def run(given: argparse.Namespace) -> int:
    setup, config = read_setup(given)
    plan = Plan(
        setup,
        Slo(given.ttft_p95_ms / 1000, given.max_gap_p99_ms / 1000),
        tuple(name.strip() for name in given.policies.split(",")),
        keep_ratio=given.keep_ratio,
        disco_budget=given.disco_budget,
        config=config,
        goodput_requests=given.goodput_requests,
        played=given.played,
        jobs=given.jobs,
    )
    comparison = compare(read_workload(given), plan, note)
    if given.csv:
        given.csv.write_text(as_csv(comparison), encoding="utf-8")
    if given.html:
        given.html.write_text(as_html(comparison), encoding="utf-8")
    if comparison.skipped.count:
        note(f"{comparison.skipped.count:,} rows of the workload are no requests; see pd-plan workload")
    if given.json:
        emit(as_json(comparison))
        return 0
    cloud = setup.cloud
    roles = f"{cloud.prefill_instances} prefill" if cloud.prefill_instances else "mixed"
    say(f"simulated: {comparison.requests:,} requests, {comparison.rate:.2f}/s; {cloud.instances} instances ({roles})")
    for role, profile in (("device", setup.device), ("cloud", cloud.hardware), ("link", setup.link)):
        say(f"{role:<7} {profile.name} ({provenance(profile)})")
    table(*rows(comparison))
    for sentence in findings(comparison):
        say(sentence)
    say(
        f"{comparison.seconds:.1f} s, {comparison.cpu_seconds:.1f} s of CPU time"
        + (f"; report in {given.html}" if given.html else "")
    )
    return 0
