"""A model on its way from the hub: running, paused, there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from demos.chat.emitter import Emitter
from demos.chat.viewmodel.problems import Problem, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from demos.chat.background import Background, Job
    from model_runtime.hub import DownloadProgress

DownloadState = Literal["idle", "running", "paused", "done", "failed"]


class DownloadModel:
    """`download` is `answering.downloads.download`; tests give another."""

    def __init__(
        self,
        background: Background,
        download: Callable[[str, Callable[[DownloadProgress], None]], Coroutine[Any, Any, Path]],
    ) -> None:
        self.changed: Emitter[None] = Emitter()
        self.state: DownloadState = "idle"
        self.done_bytes = 0
        self.total_bytes = 0
        self.problem: Problem | None = None
        self._background = background
        self._download = download
        self._job: Job | None = None
        self._spec = ""

    @property
    def fraction(self) -> float:
        return self.done_bytes / self.total_bytes if self.total_bytes else 0.0

    def start(self, spec: str) -> None:
        """Begin, or go on where `pause` stopped."""
        if self.state == "running":
            return
        if spec != self._spec:
            self.done_bytes = self.total_bytes = 0
        self._spec, self.problem = spec, None
        self._job = self._background.run(lambda: self._download(spec, self._told), self._done, self._failed)
        self._become("running")

    def pause(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._job = None
            self._become("paused")

    def cancel(self) -> None:
        """What has arrived stays in the hub's cache, for another time."""
        self.pause()
        self.done_bytes = self.total_bytes = 0
        self._become("idle")

    def _told(self, progress: DownloadProgress) -> None:
        job = self._job

        def tell() -> None:
            # Going on, the hub is asked what there is before what is here already is counted.
            looking = progress.done_bytes == 0 < self.done_bytes
            if self.state == "running" and self._job is job and not looking:
                self.done_bytes, self.total_bytes = progress.done_bytes, progress.total_bytes
                self.changed.emit(None)

        self._background.post(tell)

    def _done(self, _: Path) -> None:
        self._job = None
        self.done_bytes = self.total_bytes
        self._become("done")

    def _failed(self, error: Exception) -> None:
        self._job = None
        self.problem = problem_of(error)
        self._become("failed")

    def _become(self, state: DownloadState) -> None:
        self.state = state
        self.changed.emit(None)
