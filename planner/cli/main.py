"""The console script: one module for each command, imported when it is asked for."""

from __future__ import annotations

import argparse
import enum
import importlib
import sys
from collections.abc import Sequence

from model_runtime.errors import LoadError
from planner.errors import InfeasiblePlanError, MeasurementError, PlannerError
from speed_controller.errors import SpeedControllerError


class ExitCode(enum.IntEnum):
    """What the process ends with. argparse's own code for a wrong command line is 2, too."""

    OK = 0
    #: A measurement or a live run failed.
    FAILED = 1
    BAD_INPUT = 2
    INFEASIBLE = 3
    INTERRUPTED = 130


#: Command → what it does. `planner.cli.<command>` has `add_arguments(parser)` and `run(given) -> int`.
COMMANDS = {
    "profile": "measure this machine, a live service or the link to it; list what is known",
    "workload": "what a trace or a generated workload is like",
    "solve": "choose route, grant, keep ratio, pace and chunk per prompt length",
    "validate": "run the live system on a sample and print the forecast beside it",
    "simulate": "replay a workload in virtual time; any answer as a trace",
    "compare": "policies side by side on one workload and one cloud: latency, cost, goodput",
}

_EPILOG = """\
examples:
  pd-plan profile list
  pd-plan profile device --model demos/models/device --out phone.json
  pd-plan workload trace.csv
  pd-plan solve --workload trace.csv --device phone.json --cloud datacentre-a100-pcie --link 5g --out split.toml
  pd-plan compare --workload trace.csv --device phone.json --cloud datacentre-a100-pcie --link 5g --html report.html

`pd-plan COMMAND --help` says more. Results go to standard output (one JSON object with --json), everything else to
standard error.

exit codes: 0 done, 1 a measurement failed, 2 the input is not usable, 3 no plan keeps the limits, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(given)
    options = parser.parse_args(given)
    try:
        return int(importlib.import_module(f"planner.cli.{options.command}").run(options))
    except InfeasiblePlanError as error:
        return _end(str(error), ExitCode.INFEASIBLE)
    except MeasurementError as error:
        return _end(str(error), ExitCode.FAILED)
    except (PlannerError, LoadError, SpeedControllerError) as error:
        return _end(str(error), ExitCode.BAD_INPUT)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        return _end(f"the package {package!r} is missing; install pd-device[planner]", ExitCode.BAD_INPUT)
    except KeyboardInterrupt:
        return _end("interrupted", ExitCode.INTERRUPTED)


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pd-plan",
        description="Plan how answers are split between a cloud and devices: from profiles to a configuration.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, formatter_class=argparse.RawDescriptionHelpFormatter)
        # Only the command that is asked for: a simulator need not be imported to list profiles.
        if given[:1] == [name]:
            importlib.import_module(f"planner.cli.{name}").add_arguments(command)
    return parser


def _end(message: str, code: ExitCode) -> int:
    sys.stderr.write(f"pd-plan: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
