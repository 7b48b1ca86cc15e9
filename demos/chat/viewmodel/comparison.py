"""The same question on the device, in the cloud and split, beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demos.chat.emitter import Emitter
from demos.chat.viewmodel.answer import AnswerModel
from device_sdk import Mode

if TYPE_CHECKING:
    from demos.chat.background import Job
    from demos.chat.viewmodel.services import Services, Stamped
    from model_runtime.core import Message as ChatMessage

#: As they are laid out; each runs alone, so that none disturbs another's times.
MODES = (Mode.ONLY_ON_DEVICE, Mode.ONLY_IN_CLOUD, Mode.SPLIT)


@dataclass(slots=True)
class Column:
    mode: Mode
    answer: AnswerModel
    started: bool = False


class ComparisonModel:
    """Runs from `start` until all three ended or `stop`."""

    def __init__(self, services: Services, question: str, messages: list[ChatMessage], given: AnswerModel) -> None:
        """`given`: the answer that is there already; it stands for its mode where it is whole."""
        self.changed: Emitter[Column] = Emitter()
        self.ended: Emitter[None] = Emitter()
        self.question = question
        self.columns = [Column(mode, AnswerModel()) for mode in MODES]
        self._services = services
        self._messages = messages
        self._job: Job | None = None
        for column in self.columns:
            if given.state == "whole" and given.report is not None and given.report.mode is column.mode:
                column.answer, column.started = given, True

    @property
    def busy(self) -> bool:
        return self._job is not None

    def start(self) -> None:
        self._next()

    def stop(self) -> None:
        """What was said stays. Idempotent."""
        job, self._job = self._job, None
        if job is not None:
            job.cancel()
            for column in self.columns:
                if column.started:
                    column.answer.stop()
                    self.changed.emit(column)
            self.ended.emit(None)

    def _next(self) -> None:
        column = next((column for column in self.columns if not column.started), None)
        if column is None:
            self._job = None
            self.ended.emit(None)
            return
        column.started = True

        def take(stamped: Stamped) -> None:
            column.answer.take(stamped)
            self.changed.emit(column)

        def ended(error: Exception | None) -> None:
            if error is not None:
                column.answer.fail(error)
            column.answer.stop()
            self.changed.emit(column)
            self._next()

        self._job = self._services.background.listen(self._services.ask(self._messages, column.mode), take, ended)
        self.changed.emit(column)
