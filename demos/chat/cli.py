"""`pd-chat`: options, settings, and the window."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demos.chat import preferences
from demos.chat.answering.setup import LocalCloud, demo_setup
from demos.chat.viewmodel.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESCRIPTION = """\
A desktop chat client: the cloud begins an answer, this device finishes it, and you see who said what.

--demo starts a cloud of its own on this machine, with bundled models on emulated hardware; without it, models and
cloud are chosen in the settings.
"""
_EPILOG = "exit codes: 0 closed, 2 an option or a package is not usable"


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.getLogger("model_runtime").addHandler(logging.NullHandler())
    logging.getLogger("device_sdk").addHandler(logging.NullHandler())
    try:
        from demos.chat.ui.app import run
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        print(f"pd-chat: the package {package!r} is missing; install pd-device[chat]", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"pd-chat: Qt cannot be used here: {error}", file=sys.stderr)
        return 2
    folder: Path = options.data or preferences.data_folder()
    if options.demo and options.data is None:
        # The demonstration's settings and conversations are its own.
        folder = folder / "demo"
    settings, complaint = preferences.load(folder / "settings.json", demo_settings() if options.demo else Settings())
    changes = {}
    if options.device_model:
        changes["device_model"] = options.device_model
    if options.cloud:
        changes |= {"cloud": "remote", "cloud_url": options.cloud}
    return run(dataclasses.replace(settings, **changes), folder, demo=options.demo, complaint=complaint)


def demo_settings() -> Settings:
    """What `--demo` begins with."""
    setup = demo_setup()
    assert setup.device is not None  # noqa: S101 - the demo has both
    assert isinstance(setup.cloud, LocalCloud)  # noqa: S101
    return Settings(
        device_model=setup.device.model,
        device_profile=setup.device.profile or "",
        cloud="local",
        local_cloud_model=setup.cloud.model,
        local_cloud_profile=setup.cloud.profile or "",
        link=setup.link,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pd-chat", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", action="store_true", help="own cloud, bundled models, emulated hardware")
    parser.add_argument("--device-model", metavar="PATH", help="a model file or folder, or hf://owner/name[/file]")
    parser.add_argument("--cloud", metavar="URL", help="a cloud service, ws:// or wss://")
    parser.add_argument("--data", type=Path, metavar="DIR", help="settings and history (by default this user's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
