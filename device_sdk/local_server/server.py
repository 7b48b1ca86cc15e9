"""uvicorn as the local server needs it."""

from __future__ import annotations

from typing import Any

import uvicorn

from device_sdk.local_server.service import LocalService
from http_api.serving import DrainingServer

#: How long connections get to take the last words after the drain, in whole seconds.
CLOSE_TIMEOUT = 3


class LocalServer(DrainingServer):
    """Serves the app of one LocalService."""

    def __init__(self, app: Any, service: LocalService) -> None:
        config = uvicorn.Config(
            app,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=CLOSE_TIMEOUT,
        )
        super().__init__(config, drain=service.drain, hurry=service.hurry)
