"""Answers as a split configuration says: on the device, split or in the cloud, by the prompt's length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.core import Route, SplitConfig
from planner.policies.alone import InCloud, OnDevice
from planner.policies.split import Split
from speed_controller.split import SplitSettings

if TYPE_CHECKING:
    from planner.core import Request
    from planner.simulator.world import World


@dataclass(frozen=True, slots=True)
class PlannedSettings:
    """What the SDK would take from the configuration for a prompt of so many tokens."""

    config: SplitConfig

    def __call__(self, prompt: int) -> SplitSettings:
        return self.config.settings(self.config.bucket(prompt))


@dataclass(frozen=True, slots=True)
class Planned:
    """`refine`: with the configuration's keep ratios, or `keep_ratio` where it has none; else without any."""

    config: SplitConfig
    refine: bool
    keep_ratio: float

    @property
    def name(self) -> str:
        return "split+refine" if self.refine else "split"

    def begin(self, world: World, index: int, request: Request) -> None:
        bucket = self.config.bucket(request.prompt_tokens)
        if bucket.route is Route.DEVICE:
            OnDevice().begin(world, index, request)
        elif bucket.route is Route.CLOUD:
            InCloud().begin(world, index, request)
        else:
            keep = (bucket.keep_ratio or self.keep_ratio) if self.refine else None
            Split(self.name, keep).begin(world, index, request)
