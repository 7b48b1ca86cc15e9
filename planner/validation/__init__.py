"""The forecast beside the live system: an error that is not printed is not known."""

from planner.validation.errors import BesideDefault, Row, beside_default, errors, rows
from planner.validation.load import Loaded, loaded_row, run_under_load
from planner.validation.trials import Trial, run_trials

__all__ = [
    "BesideDefault",
    "Loaded",
    "Row",
    "Trial",
    "beside_default",
    "errors",
    "loaded_row",
    "rows",
    "run_trials",
    "run_under_load",
]
