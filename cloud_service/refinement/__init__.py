"""Which parts of a prompt matter for its answer."""

from cloud_service.refinement.contract import Prompt, Refiner
from cloud_service.refinement.keep_all import KeepAll

__all__ = ["KeepAll", "Prompt", "Refiner"]
