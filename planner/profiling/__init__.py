"""Profiles measured on the machine they run on: a device's engine, a live service, the link to it."""

from planner.profiling.device import DevicePlan, measure_device
from planner.profiling.fits import batch_share, overhead_ms, relative_deviation

__all__ = ["DevicePlan", "batch_share", "measure_device", "overhead_ms", "relative_deviation"]
