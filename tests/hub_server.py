"""An HTTP server on loopback that speaks the Hub's few endpoints, for its real client: one repository, and what goes
wrong with it."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(range(256)) * 12_000  # about 3 MB


@dataclass
class Hub:
    """One repository, `owner/model`, and what goes wrong with it."""

    files: dict[str, bytes] = field(default_factory=dict)
    commit: str = COMMIT
    #: A token that every request must bring.
    token: str | None = None
    #: Answer everything with this status, and this error code in the header.
    refuse: tuple[int, str] | None = None
    #: Cut the connection after so many bytes of a file, this many times.
    cut_after: int = 0
    cuts_left: int = 0
    #: Send nothing more after so many bytes of a file, until the test is over.
    hang_after: int | None = None
    knows_ranges: bool = True
    damage: bool = False
    #: Of every GET of a file: its name and where it was asked to begin.
    gets: list[tuple[str, int]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    url: str = ""


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if hub.refuse is not None:
                self.give(*hub.refuse)
            elif hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.give(401, "RepoNotFound")
            elif match := re.fullmatch(r"/api/models/owner/model/revision/(.+)", path):
                if match[1] in ("main", hub.commit):
                    self.give(200, "", json.dumps(self.description()).encode())
                else:
                    self.give(404, "RevisionNotFound")
            elif match := re.fullmatch(r"/owner/model/resolve/[^/]+/(.+)", path):
                if match[1] in hub.files:
                    self.file(match[1], body=body)
                else:
                    self.give(404, "EntryNotFound")
            else:
                self.give(404, "RepoNotFound")

        def description(self) -> dict[str, object]:
            siblings: list[dict[str, object]] = []
            for name, data in hub.files.items():
                entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": git_hash(data)}
                if is_large(data):
                    entry["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
                siblings.append(entry)
            return {"id": "owner/model", "sha": hub.commit, "siblings": siblings}

        def give(self, status: int, code: str = "", data: bytes = b"") -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def file(self, name: str, *, body: bool) -> None:
            data = hub.files[name]
            begin = 0
            if hub.knows_ranges and (wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
                begin = int(wanted[1])
            self.send_response(206 if begin else 200)
            etag = hashlib.sha256(data).hexdigest() if is_large(data) else git_hash(data)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("Content-Length", str(len(data) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if body:
                hub.gets.append((name, begin))
                self.pour(b"\0" * len(data) if hub.damage else data, begin)

        def pour(self, data: bytes, begin: int) -> None:
            for at in range(begin, len(data), 65_536):
                if hub.hang_after is not None and at >= hub.hang_after:
                    hub.over.wait(30)
                    return
                if hub.cuts_left and at >= hub.cut_after:
                    hub.cuts_left -= 1
                    self.close_connection = True
                    return
                self.wfile.write(data[at : at + 65_536])

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_large(data: bytes) -> bool:
    return len(data) > 100_000


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away in the middle are what is tested."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """`hub.url` is where it is."""
    server = QuietServer(("127.0.0.1", 0), handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
