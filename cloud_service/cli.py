"""`pd-cloud`: serve a model to devices and to OpenAI clients."""

from __future__ import annotations

import argparse
import asyncio
import enum
import json
import os
import socket
import sys
from collections.abc import Sequence

from fastapi import FastAPI

from cloud_service.app import create_app
from cloud_service.auth import OpenServiceError
from cloud_service.desk import Desk
from cloud_service.keys import cli as keys_cli
from cloud_service.keys.file import KeyFileError
from cloud_service.limits import LimitStoreError
from cloud_service.logs import configure_logging
from cloud_service.refinement.calibrate import cli as calibrate_cli
from cloud_service.server import CloudServer, check_tls
from cloud_service.service import Broken, Service, Serving
from cloud_service.settings import ENVIRONMENT_PREFIX, SECRET_FIELDS, Settings, load_settings
from cloud_service.telemetry.choose import TracingUnavailableError
from http_api.serving import listen, run, settle_heap, url_of
from http_api.settings import SettingsError, add_flags, flags_given
from model_runtime.errors import LoadError


class ExitCode(enum.IntEnum):
    """What the process ends with. argparse's own code for a wrong command line is 2, too."""

    OK = 0
    ENGINE_FAILED = 1
    BAD_SETTINGS = 2
    MODEL_NOT_LOADED = 3
    CANNOT_LISTEN = 4


EPILOG = f"""\
examples:
  pd-cloud serve --model demos/models/cloud/model.onnx
  pd-cloud serve --model hf://owner/name/file.gguf --port 0 --json
  pd-cloud serve --config cloud.toml
  pd-cloud serve --model … --host 0.0.0.0 --key-file keys.toml --tls-certificate chain.pem --tls-key key.pem

Every setting can also stand in a TOML file (max_grant = 256) or in the environment
({ENVIRONMENT_PREFIX}MAX_GRANT=256). A flag beats the environment, which beats the file.
Keys are made with `pd-cloud keys add`, which keeps their hashes in a file. A secret is never a flag, which every
user of the machine could read: rate_limit_store (an address with a password) stands in the file or the environment.

When the model is loaded, one line is printed on standard output; with --json it is
  {{"event": "ready", "url": "http://127.0.0.1:8080", "host": …, "port": …, "model": …, "hardware": …, "pid": …}}

endpoints:  /v1/pd (WebSocket, for devices)  /v1/models  /v1/chat/completions
            /health  /ready  /metrics
SIGTERM drains: running generations finish, devices are told, then the process ends.

exit codes: 0 ended after a drain, 1 the engine failed, 2 settings are not usable,
            3 the model cannot be loaded, 4 cannot listen there
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command == "keys":
        return _keys(given)
    if given.command == "calibrate":
        return _calibrate(given)
    try:
        settings = load_settings(given.config, flags_given(given, Settings))
        check_tls(settings)
        app = create_app(settings)
    except (SettingsError, OpenServiceError, KeyFileError, LimitStoreError, TracingUnavailableError) as error:
        _complain(str(error))
        return ExitCode.BAD_SETTINGS
    configure_logging(settings)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        _complain(f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}")
        return ExitCode.CANNOT_LISTEN
    with listener:
        return run(_serve(app, settings, listener, as_json=given.json))


async def _serve(app: FastAPI, settings: Settings, listener: socket.socket, *, as_json: bool) -> ExitCode:
    service: Service = app.state.service
    server = CloudServer(app, service, settings)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    settled = asyncio.create_task(service.settled.wait())
    await asyncio.wait({serving, settled}, return_when=asyncio.FIRST_COMPLETED)
    settled.cancel()
    match service.state:
        case Serving(desk):
            settle_heap()
            _announce(desk, settings, listener, as_json=as_json)
        case Broken():
            server.should_exit = True
        case _:
            pass  # a signal came first
    await serving
    match service.state:
        case Broken(cause, loaded):
            _complain(cause)
            return ExitCode.ENGINE_FAILED if loaded else ExitCode.MODEL_NOT_LOADED
        case _:
            return ExitCode.OK


def _announce(desk: Desk, settings: Settings, listener: socket.socket, *, as_json: bool) -> None:
    """The ready line."""
    host, port = listener.getsockname()[:2]
    url = url_of(listener, "http" if settings.tls_certificate is None else "https")
    facts = {
        "event": "ready",
        "url": url,
        "host": host,
        "port": port,
        "model": desk.model_name,
        "hardware": desk.info.hardware,
        "pid": os.getpid(),
    }
    text = json.dumps(facts) if as_json else f"pd-cloud serves {desk.model_name} at {url} ({desk.info.hardware})"
    print(text, flush=True)  # noqa: T201 - what this command is asked to print


def _keys(given: argparse.Namespace) -> ExitCode:
    try:
        print(keys_cli.run(given))  # noqa: T201
    except KeyFileError as error:
        _complain(str(error))
        return ExitCode.BAD_SETTINGS
    return ExitCode.OK


def _calibrate(given: argparse.Namespace) -> ExitCode:
    try:
        print(calibrate_cli.run(given))  # noqa: T201
    except LoadError as error:
        _complain(str(error))
        return ExitCode.MODEL_NOT_LOADED
    except calibrate_cli.FAILURES as error:
        _complain(str(error))
        return ExitCode.BAD_SETTINGS
    return ExitCode.OK


def _complain(text: str) -> None:
    print(f"pd-cloud: {text}", file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pd-cloud", description="The cloud side of pd-device.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="serve a model",
        description="Serve one model to devices (WebSocket) and to any OpenAI client (HTTP).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--json", action="store_true", help="print the ready line as JSON")
    add_flags(serve, Settings, but=SECRET_FIELDS)
    keys_cli.add_parser(commands)
    calibrate_cli.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
