"""Everything the planner raises on purpose.

PlannerError            what the caller can put right; the message says what was wrong, what was expected, what to do
├── WorkloadError           a trace that cannot be read as one, or a generator with impossible parameters
├── MeasurementError        a profile could not be measured here
└── InfeasiblePlanError     no setting keeps the constraints; `.advice` says which to relax, and by how much
"""

from __future__ import annotations


class PlannerError(Exception):
    """Base of all errors of the planner."""


class WorkloadError(PlannerError):
    """A trace cannot be read as one, or a generator's parameters are impossible."""


class MeasurementError(PlannerError):
    """A profile could not be measured here."""


class InfeasiblePlanError(PlannerError):
    """No setting keeps the constraints."""

    def __init__(self, message: str, advice: tuple[str, ...]) -> None:
        super().__init__("\n".join((message, *advice)))
        #: One sentence for each constraint that would make it feasible if it alone were relaxed.
        self.advice = advice
