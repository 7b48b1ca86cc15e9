"""`pd-plan`: profiles, workloads, plans."""

from planner.cli.main import main

__all__ = ["main"]
