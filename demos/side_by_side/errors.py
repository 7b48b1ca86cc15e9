"""What ends the demo early. Each carries the exit code and one clear line; nobody sees a traceback.

DemoError
├── UsageError    exit code 2: an option that cannot be, a file or a package that is not there
└── CloudError    exit code 3: the cloud process did not start, or died when it was needed
"""

from __future__ import annotations


class DemoError(Exception):
    """Base: something ended the demo; the message is for the person at the terminal."""

    exit_code = 1


class UsageError(DemoError):
    """The caller can put it right."""

    exit_code = 2


class CloudError(DemoError):
    """The cloud process failed; the message names its log file."""

    exit_code = 3
