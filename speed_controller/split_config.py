"""The split configuration: what the planner decided, for a range of prompt lengths each.

The device takes its settings from it, the service checks grants against it; `plan_file` reads its file.
"""

from __future__ import annotations

import bisect
import enum
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from speed_controller.errors import SettingError
from speed_controller.settings import PaceSettings
from speed_controller.split import SplitSettings


class Route(enum.Enum):
    """Who answers a prompt of a bucket."""

    #: The device alone; the cloud only where the device's engine fails.
    DEVICE = "device"
    #: The cloud begins, the device finishes.
    SPLIT = "split"
    #: The cloud alone; the device only where the cloud fails.
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Slo:
    """What users are promised. Seconds; None: no promise. Raises SettingError naming the field."""

    ttft_p95: float | None = None
    #: 99th percentile, over answers, of an answer's largest gap between two shown tokens.
    max_gap_p99: float | None = None
    #: Least share of the full prompt's answer quality that a refined prompt must keep.
    quality: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_p95", "max_gap_p99"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SettingError(name, value, "a time above 0 s, or None")
        if self.quality is not None and not 0 < self.quality <= 1:
            raise SettingError("quality", self.quality, "a share above 0 and at most 1, or None")


@dataclass(frozen=True, slots=True)
class Bucket:
    """What to do with prompts of up to `up_to` tokens (and more than the bucket before). `pace` is in seconds."""

    #: None: however long.
    up_to: int | None
    route: Route
    grant: int = 0
    keep_ratio: float | None = None
    pace: float = 0.050
    chunk: int | None = None
    #: The constraint that keeps it from being cheaper; empty: none does.
    binding: str = ""
    #: What the planner expects: metric → value, units in the metric's name. Empty where nobody asked.
    predicted: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.up_to is not None and self.up_to < 1:
            raise SettingError("up_to", self.up_to, "at least 1 prompt token; leave it out of the last bucket")
        if self.grant < 0 or (self.route is Route.DEVICE and self.grant):
            raise SettingError("grant", self.grant, "0 for the route 'device'" if self.grant > 0 else "at least 0")
        for name, value in (("pace", self.pace), *self.predicted.items()):
            if not (math.isfinite(value) and value >= 0):
                raise SettingError(name, value, "a finite number of at least 0")
        self.settings(PaceSettings(), self.grant)

    def settings(self, pace: PaceSettings, max_grant: int, max_gap: float | None = None) -> SplitSettings:
        """For the SDK: `pace` moved to the bucket's, the grant as planned where the answer is split, and refined as
        planned, however short the prompt. `max_gap`: what users are promised; the slowest even pace leaves a tenth of
        it to what is not even."""
        slowest = pace.pace_max * self.pace / pace.pace
        if max_gap is not None:
            slowest = min(slowest, 0.9 * max_gap)
        moved = replace(pace, pace=self.pace, pace_min=min(pace.pace_min, self.pace), pace_max=max(slowest, self.pace))
        grant = self.grant if self.route is Route.SPLIT else None
        return SplitSettings(
            grant=grant,
            keep_ratio=self.keep_ratio,
            pace=moved,
            chunk=self.chunk,
            max_grant=max(max_grant, self.grant),
            refine_from=0,
            keep_at_least=0,
        )


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """All buckets, in rising order, the last one for however long a prompt. Raises SettingError."""

    buckets: tuple[Bucket, ...]
    slo: Slo = Slo()
    #: The largest grant ever, extensions included.
    max_grant: int = 256
    #: How to pace; a bucket's own pace moves its limits with it.
    pace: PaceSettings = field(default_factory=PaceSettings)
    #: What was minimised.
    objective: str = "cloud-seconds"
    #: ISO 8601 day in UTC.
    created: str = ""
    #: What went in: role → name and `sha256:` of the content.
    inputs: Mapping[str, str] = field(default_factory=dict)
    #: Mean absolute relative error of the prediction as last validated: metric → share.
    error: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.buckets or self.buckets[-1].up_to is not None:
            raise SettingError("buckets", len(self.buckets), "at least one, the last one without up_to")
        limits = [math.inf if bucket.up_to is None else bucket.up_to for bucket in self.buckets]
        if any(after <= before for before, after in itertools.pairwise(limits)):
            raise SettingError("up_to", limits, "limits that rise from bucket to bucket")
        worst = max(bucket.grant for bucket in self.buckets)
        if self.max_grant < worst:
            raise SettingError("max_grant", self.max_grant, f"at least the largest bucket's grant, {worst}")

    def settings(self, bucket: Bucket) -> SplitSettings:
        """What the SDK makes of one of the buckets."""
        return bucket.settings(self.pace, self.max_grant, self.slo.max_gap_p99)

    def bucket(self, prompt_tokens: int) -> Bucket:
        """The bucket that a prompt of so many tokens falls into."""
        limits = [bucket.up_to for bucket in self.buckets[:-1] if bucket.up_to is not None]
        return self.buckets[bisect.bisect_left(limits, prompt_tokens)]
