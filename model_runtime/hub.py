"""Models from the Hugging Face Hub: `hf://owner/name[@revision][/file]`.

What is needed of a repository, and nothing else, lands in the Hub's own cache, where other programs find it too. The
work is done in a thread of its own, so that the caller is free in a moment when it cancels, even while the network
hangs; progress is reported in the caller's thread.
"""

from __future__ import annotations

import errno
import hashlib
import math
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_runtime.errors import (
    DiskFullError,
    DownloadError,
    LoadCancelled,
    LoadError,
    LoadTimeoutError,
    ModelAccessError,
    ModelNotFoundError,
)
from model_runtime.hub_files import EngineName, HubSpec, choose, parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from huggingface_hub.hf_api import ModelInfo

    from model_runtime.core import Cancellation

_REPORT_EVERY_S = 0.1
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How far a download is. What was there already counts as done."""

    done_bytes: int
    total_bytes: int


def pull(
    spec: str,
    *,
    engine: EngineName = "auto",
    cancellation: Cancellation | None = None,
    progress: Callable[[DownloadProgress], None] | None = None,
    timeout_s: float | None = None,
    cache_dir: Path | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Path:
    """Download what is new or missing of a model; returns its .onnx or .gguf file in the cache.

    `engine` decides where a repository holds both kinds. `cache_dir` None is the Hub's own cache, `token` None the
    one the user has logged in with, `endpoint` None the Hub (or `HF_ENDPOINT`). `progress` is called in this thread.

    Raises ModelNotFoundError (no such repository, revision or file, or several to choose from), ModelAccessError,
    DownloadError, DiskFullError, LoadTimeoutError after `timeout_s`, and LoadCancelled within a moment of
    `cancellation`; the download then stops behind the caller's back, at the next piece of data.
    """
    parsed = parse_spec(spec)
    worker = _Worker(parsed, engine, _cache(parsed, cache_dir), token, endpoint)
    until = math.inf if timeout_s is None else time.monotonic() + timeout_s
    forget = cancellation.on_cancel(worker.wake.set) if cancellation is not None else lambda: None
    worker.start()
    try:
        while True:
            worker.wake.wait(min(_REPORT_EVERY_S, max(0.0, until - time.monotonic())))
            if cancellation is not None and cancellation.cancelled:
                raise LoadCancelled(f"the download of {parsed} was cancelled; the next one goes on from here")
            if progress is not None and worker.total_bytes:
                progress(DownloadProgress(worker.done_bytes, worker.total_bytes))
            if worker.finished.is_set():
                return worker.result()
            if time.monotonic() >= until:
                raise LoadTimeoutError(f"{parsed} was not downloaded within {timeout_s:g} s; the next try goes on")
    finally:
        forget()
        worker.stop.set()


def cached(spec: str, *, engine: EngineName = "auto", cache_dir: Path | None = None) -> Path | None:
    """The model's file where all of it is in the cache, without any network; else None."""
    parsed = parse_spec(spec)
    snapshot = _cache(parsed, cache_dir).snapshot(parsed.revision)
    if snapshot is None:
        return None
    names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    try:
        choice = choose(names, parsed, engine)
    except ModelNotFoundError:
        return None
    model = snapshot / choice.model
    # The model's own file is downloaded behind what belongs to it, so that is there too, but for:
    needed = [snapshot / name for name in choice.files] + [model.parent / name for name in _weights_beside(model)]
    return model if all(path.is_file() for path in needed) else None


@dataclass(frozen=True, slots=True)
class _Cache:
    """A repository's folder in the Hub's cache, whose layout is documented and shared between programs."""

    root: Path
    folder: Path

    def blob(self, etag: str) -> Path:
        return self.folder / "blobs" / etag

    def snapshot(self, revision: str) -> Path | None:
        reference = self.folder / "refs" / revision
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
        path = self.folder / "snapshots" / commit
        return path if path.is_dir() else None


def _cache(spec: HubSpec, cache_dir: Path | None) -> _Cache:
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) if cache_dir is None else cache_dir
    return _Cache(root, root / f"models--{spec.repository.replace('/', '--')}")


class _Worker(threading.Thread):
    """Downloads in the background; whoever started it looks at its fields."""

    def __init__(
        self, spec: HubSpec, engine: EngineName, cache: _Cache, token: str | None, endpoint: str | None
    ) -> None:
        # A daemon: a connection that hangs after a cancellation must not keep the program from ending.
        super().__init__(name=f"download {spec}", daemon=True)
        self.done_bytes = 0
        self.total_bytes = 0
        self.wake = threading.Event()
        self.finished = threading.Event()
        self.stop = threading.Event()
        self._spec = spec
        self._engine: EngineName = engine
        self._cache = cache
        self._token = token
        self._endpoint = endpoint
        self._path = Path()
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._path = self._download()
        except Exception as error:  # handed to the caller's thread
            self._error = error
        self.finished.set()
        self.wake.set()

    def result(self) -> Path:
        if self._error is not None:
            raise _explain(self._error, self._spec) from self._error
        return self._path

    def _download(self) -> Path:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._endpoint, token=self._token)
        info = api.model_info(self._spec.repository, revision=self._spec.revision, files_metadata=True, timeout=10)
        files = {sibling.rfilename: sibling for sibling in info.siblings or []}
        choice = choose(files, self._spec, self._engine)
        self.total_bytes = sum(files[name].size or 0 for name in choice.files)
        for name in choice.files:
            self._get(info, name)
        model = self._cache.folder / "snapshots" / str(info.sha) / choice.model
        # Most exports name these files after the graph; only the graph itself tells for all.
        for name in (Path(choice.model).with_name(beside).as_posix() for beside in _weights_beside(model)):
            if name in files and name not in choice.files:
                self.total_bytes += files[name].size or 0
                self._get(info, name)
        if self._spec.revision != info.sha:
            reference = self._cache.folder / "refs" / self._spec.revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(str(info.sha), encoding="utf-8")
        return model

    def _get(self, info: ModelInfo, name: str) -> None:
        from huggingface_hub import hf_hub_download, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # loaded on first use

        from model_runtime.download import Stopped, fetch

        if self.stop.is_set():
            raise Stopped
        file = next(sibling for sibling in info.siblings or [] if sibling.rfilename == name)
        size = file.size or 0
        if file.lfs is not None:
            etag, digest = file.lfs.sha256, hashlib.sha256()
        else:  # a git object
            etag, digest = str(file.blob_id), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        # They become names of files here.
        if not (_HASH.fullmatch(etag) and _HASH.fullmatch(str(info.sha))):
            raise DownloadError(f"{self._spec}: the Hub names {name} by {etag!r} of {info.sha!r}, which are no hashes")
        if (self._cache.folder / "snapshots" / str(info.sha) / name).exists():
            self._arrived(size)
            return
        blob = self._cache.blob(etag)
        if blob.exists():
            self._arrived(size)
        else:
            url = hf_hub_url(self._spec.repository, name, revision=info.sha, endpoint=self._endpoint)
            headers = build_hf_headers(token=self._token)
            fetch(url, headers, blob, size=size, digest=digest, arrived=self._arrived, stopped=self.stop.is_set)
        # Finds the content there and only links it into the snapshot, in the way this system can.
        hf_hub_download(
            self._spec.repository,
            name,
            revision=info.sha,
            cache_dir=self._cache.root,
            token=self._token,
            endpoint=self._endpoint,
        )

    def _arrived(self, count: int) -> None:
        self.done_bytes += count


def _weights_beside(model: Path) -> tuple[str, ...]:
    """The files in which an ONNX graph keeps weights, by their names beside it."""
    if model.suffix != ".onnx":
        return ()
    from model_runtime.onnx.graph import read_graph

    return tuple(read_graph(model).external)


def _explain(error: Exception, spec: HubSpec) -> Exception:
    """Our error for one of the Hub's client; an error of ours stays what it is."""
    from huggingface_hub import errors

    from model_runtime.download import HTTPError

    match error:
        case LoadError():
            return error
        case errors.GatedRepoError():
            return ModelAccessError(
                f"{spec}: the owner asks to accept terms first: do that on the model's page, then log in with a token"
            )
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return ModelAccessError(
                f"{spec}: the Hub answers {error.response.status_code}: there is no such repository, or it is private: "
                "check its name, or log in with a token that may read it"
            )
        case errors.RepositoryNotFoundError() | errors.RevisionNotFoundError() | errors.EntryNotFoundError() if (
            isinstance(error, errors.HfHubHTTPError)
        ):
            return ModelNotFoundError(f"{spec} is not on the Hub: check repository, revision and file ({error})")
        case errors.HFValidationError():
            return ModelNotFoundError(f"{spec} cannot be on the Hub: {error}")
        case HTTPError() | errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError():
            return DownloadError(f"{spec} cannot be downloaded: {type(error).__name__}: {error}")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFullError(f"{spec} does not fit on the disk: {error}")
        case OSError():
            return LoadError(f"{spec} cannot be put into the cache: {error}")
        case _:
            return error
