"""An answer under way: what has been said, by whom, and what happened beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demos.chat.history.records import Details, Run, State
from demos.chat.history.store import extend
from demos.chat.viewmodel.problems import Problem, notice_text, problem_of
from demos.chat.viewmodel.services import Begun, Stamped
from demos.chat.viewmodel.trace import Trace
from device_sdk import Cancelled, Failed, Finished, HandOver, Notice, Progress, Refined, Report, Token

if TYPE_CHECKING:
    from device_sdk import Answer


@dataclass(slots=True)
class AnswerModel:
    """Fed with what `Services.ask` yields; pure."""

    text: str = ""
    runs: list[Run] = field(default_factory=list)
    #: `waiting` until the sides are ready.
    state: State = "streaming"
    waiting: bool = True
    notices: list[str] = field(default_factory=list)
    problem: Problem | None = None
    report: Report | None = None
    trace: Trace = field(default_factory=Trace)

    def take(self, stamped: Stamped) -> None:
        match stamped.event:
            case Begun(reason=reason):
                self.waiting = False
                if reason:
                    self.notices.append(reason)
            case Token(text=text, source=source):
                self.text = extend(self.text, self.runs, source, text)
                self.trace.shown(stamped.at, source)
            case HandOver(index=index):
                self.trace.handover = index
            case Progress(arrived=arrived, read=read, prompt=prompt):
                self.trace.progressed(stamped.at, arrived, read, prompt)
            case Refined(kept=kept):
                self.trace.kept = kept
            case Notice() as notice:
                # More grant is how it works, not something to know about.
                if notice.kind != "extended":
                    self.notices.append(notice_text(notice))
            case Finished(answer=answer):
                self._end("whole", answer)
            case Failed(error=error):
                self.problem = problem_of(error)
                self._end("failed", error.answer)
            case Cancelled(answer=answer):
                self._end("stopped", answer)
            case _:
                pass  # an SDK may say more than this client knows of

    def stop(self) -> None:
        """The user has seen enough."""
        if self.state == "streaming":
            self.state, self.waiting = "stopped", False

    def fail(self, error: Exception) -> None:
        if self.state == "streaming":
            self.problem = problem_of(error)
            self.state, self.waiting = "failed", False

    def details(self) -> Details:
        problem = None if self.problem is None else f"{self.problem.title}: {self.problem.text}"
        return Details(tuple(self.runs), self.report, tuple(self.notices), problem)

    def _end(self, state: State, answer: Answer) -> None:
        self.state, self.waiting = state, False
        self.report = answer.report
        self.trace = Trace.of(answer.report)
        # What was held back as the possible beginning of a stop string, or lost to it.
        if len(answer.text) < len(self.text):
            self.text = answer.text
            self.runs = [run for run in self.runs if run.start < len(self.text)]
            if self.runs:
                last = self.runs[-1]
                self.runs[-1] = Run(last.source, last.start, min(last.stop, len(self.text)))
