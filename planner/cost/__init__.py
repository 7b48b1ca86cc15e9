"""What one request costs and how it feels, in closed form, with quantiles. Every symbol stands in docs/metrics.md."""

from planner.cost.forecast import Decision, Forecast, forecast
from planner.cost.load import Load
from planner.cost.quality import QualityTable
from planner.cost.quantity import Quantity
from planner.cost.world import World

__all__ = ["Decision", "Forecast", "Load", "QualityTable", "Quantity", "World", "forecast"]
