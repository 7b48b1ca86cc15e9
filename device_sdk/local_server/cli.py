"""`pd-local`: the device's own OpenAI server."""

from __future__ import annotations

import argparse
import asyncio
import enum
import json
import logging
import os
import socket
import sys
from collections.abc import Sequence

from fastapi import FastAPI

from device_sdk.errors import ConfigurationError
from device_sdk.local_server.app import create_app
from device_sdk.local_server.server import LocalServer
from device_sdk.local_server.service import Broken, LocalService, Serving
from device_sdk.local_server.settings import SECRET_FIELDS, LocalSettings
from http_api.serving import listen, run, url_of
from http_api.settings import SettingsError, add_flags, flags_given, load

EPILOG = """\
examples:
  pd-local serve --device demos/models/device
  pd-local serve --device hf://owner/name/file.gguf --cloud wss://cloud.example.org
  pd-local serve --device … --cloud … --split split.toml --aliases gpt-4o,gpt-4o-mini
  pd-local serve --config local.toml

Then, in any program that speaks OpenAI's API:
  OPENAI_BASE_URL=http://127.0.0.1:8090/v1 OPENAI_API_KEY=none …

Every setting can also stand in a TOML file (max_generations = 2) or in the environment
(PD_LOCAL_MAX_GENERATIONS=2). A flag beats the environment, which beats the file. The cloud's key is never a flag,
which every user of the machine could read: PD_LOCAL_CLOUD_KEY, or cloud_key in the file.

When the model is loaded, one line is printed on standard output; with --json it is
  {"event": "ready", "url": "http://127.0.0.1:8090", "host": …, "port": …, "model": …, "pid": …}

endpoints:  /v1/chat/completions  /v1/completions  /v1/models  /health  /ready
SIGTERM and Ctrl-C let running answers finish for `drain_ms`; a second one does not.

exit codes: 0 ended after a drain, 2 settings are not usable, 3 the model cannot be loaded, 4 cannot listen there
"""


class ExitCode(enum.IntEnum):
    """What the process ends with. argparse's own code for a wrong command line is 2, too."""

    OK = 0
    BAD_SETTINGS = 2
    MODEL_NOT_LOADED = 3
    CANNOT_LISTEN = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        settings = load(LocalSettings, given.config, flags_given(given, LocalSettings))
        app = create_app(settings)
    except (SettingsError, ConfigurationError) as error:
        _complain(str(error))
        return ExitCode.BAD_SETTINGS
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for name in ("uvicorn", "uvicorn.error", "websockets", "asyncio"):
        # At debug they log frames, which hold prompts and answers.
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        _complain(f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}")
        return ExitCode.CANNOT_LISTEN
    with listener:
        return run(_serve(app, listener, as_json=given.json))


async def _serve(app: FastAPI, listener: socket.socket, *, as_json: bool) -> ExitCode:
    service: LocalService = app.state.service
    server = LocalServer(app, service)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    settled = asyncio.create_task(service.settled.wait())
    await asyncio.wait({serving, settled}, return_when=asyncio.FIRST_COMPLETED)
    settled.cancel()
    match service.state:
        case Serving(name):
            _announce(name, listener, service.device_problem(), as_json=as_json)
        case Broken():
            server.should_exit = True
        case _:
            pass  # a signal came first
    await serving
    if isinstance(service.state, Broken):
        _complain(service.state.cause)
        return ExitCode.MODEL_NOT_LOADED
    return ExitCode.OK


def _announce(model: str, listener: socket.socket, problem: str | None, *, as_json: bool) -> None:
    """The ready line."""
    host, port = listener.getsockname()[:2]
    url = url_of(listener)
    facts = {"event": "ready", "url": url, "host": host, "port": port, "model": model, "pid": os.getpid()}
    if problem is not None:
        _complain(f"the device takes no part: {problem}")
    print(json.dumps(facts) if as_json else f"pd-local serves {model} at {url}/v1", flush=True)  # noqa: T201


def _complain(text: str) -> None:
    print(f"pd-local: {text}", file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pd-local", description="The device side of pd-device as a server.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="serve the device's model",
        description="Serve OpenAI's API on this machine, answered by the device and the cloud together.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--json", action="store_true", help="print the ready line as JSON")
    add_flags(serve, LocalSettings, but=SECRET_FIELDS)
    return parser
