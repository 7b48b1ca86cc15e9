"""Per prompt length: who answers, how large a grant, how much of the prompt, how fast, in which chunks."""

from planner.optimizer.buckets import make_buckets
from planner.optimizer.problem import Limits, Objective, Problem, Traffic
from planner.optimizer.solve import Plan, solve

__all__ = ["Limits", "Objective", "Plan", "Problem", "Traffic", "make_buckets", "solve"]
