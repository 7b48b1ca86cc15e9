"""`pd-cloud keys`: add, list and revoke the keys of a key file."""

from __future__ import annotations

import argparse
import dataclasses
import os
from datetime import UTC, datetime
from pathlib import Path

from cloud_service.keys.file import add_key, read_keys, revoke_key
from cloud_service.keys.records import KeyLimits
from cloud_service.settings import ENVIRONMENT_PREFIX

EPILOG = """\
examples:
  pd-cloud keys add alice --file keys.toml --max-generations 4 --tokens-per-minute 60000
  pd-cloud keys list --file keys.toml
  pd-cloud keys revoke alice --file keys.toml
  pd-cloud serve --key-file keys.toml …

A key is shown once, when it is made; the file keeps its hash. A running service notices a change within a second:
a revoked key opens nothing more, and its open connections close with the next generation that they ask for.
"""

_HELP = {
    "max_generations": "generations open at a time",
    "requests_per_minute": "generations started in any minute",
    "tokens_per_minute": "prompt tokens and granted output tokens in any minute",
    "max_grant": "output tokens of one generation",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Hang `keys` onto the command line."""
    keys = commands.add_parser(
        "keys",
        help="API keys",
        description="API keys.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = keys.add_subparsers(dest="action", required=True)
    for action, text in (("add", "make a key and show it"), ("list", "names and limits"), ("revoke", "forget a key")):
        parser = actions.add_parser(action, help=text)
        if action != "list":
            parser.add_argument("name", help="whose key it is; logs show it")
        default = os.environ.get(f"{ENVIRONMENT_PREFIX}KEY_FILE")
        parser.add_argument(
            "--file", type=Path, metavar="FILE", required=default is None, default=default, help="key file"
        )
        if action == "add":
            for name, meaning in _HELP.items():
                parser.add_argument(
                    f"--{name.replace('_', '-')}", type=_at_least_one, metavar="N", help=f"{meaning}, at most"
                )


def run(given: argparse.Namespace) -> str:
    """What to print. Raises KeyFileError."""
    match given.action:
        case "add":
            limits = KeyLimits(**{name: getattr(given, name) for name in _HELP})
            return add_key(given.file, given.name, limits, datetime.now(UTC).date())
        case "revoke":
            revoke_key(given.file, given.name)
            return f"{given.name} is revoked"
        case _:
            return _table(given.file)


def _table(file: Path) -> str:
    names = [field.name for field in dataclasses.fields(KeyLimits)]
    rows = [["name", "created", *names]]
    for name, record in sorted(read_keys(file).items()):
        limits = dataclasses.asdict(record.limits)
        rows.append([name, record.created.isoformat(), *("-" if limits[n] is None else str(limits[n]) for n in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, not {value}")
    return value
