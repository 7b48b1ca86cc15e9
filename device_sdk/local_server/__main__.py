"""Starts the command line, or says what to install for it."""

from __future__ import annotations

import sys


def main() -> int:
    """The console script `pd-local`."""
    try:
        from device_sdk.local_server.cli import main as command
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        print(f"pd-local: the package {package!r} is missing; install pd-device[local]", file=sys.stderr)  # noqa: T201
        return 2
    return command()


if __name__ == "__main__":
    sys.exit(main())
