"""The nouns of the planner. Times in seconds, sizes in tokens, unless a name says otherwise.

How fast hardware is and what a network is like are `HardwareProfile` and `LinkProfile` of `model_runtime.profiles`: the
planner forecasts with the same figures that emulation runs on. What a plan says is `SplitConfig`, `Bucket` and `Slo` of
`speed_controller.split_config`: the SDK and the service read what the planner writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from model_runtime.profiles import HardwareProfile, LinkProfile
from speed_controller.split_config import Bucket, Route, Slo, SplitConfig

__all__ = [
    "Bucket",
    "CloudProfile",
    "DeviceProfile",
    "LinkProfile",
    "Request",
    "Route",
    "Skipped",
    "Slo",
    "SplitConfig",
    "Workload",
]

#: One phone or edge box running one model.
DeviceProfile: TypeAlias = HardwareProfile


@dataclass(frozen=True, slots=True)
class CloudProfile:
    """Accelerators of one kind serving one model, as `pd-cloud` does. Raises ValueError naming the field."""

    hardware: HardwareProfile
    instances: int = 1
    #: Of the instances, those that only prefill and hand KV to the others (P/D-Serve); 0: each does both.
    prefill_instances: int = 0
    #: Per instance: generations that share passes, generations that may wait, tokens of a pass.
    max_sequences: int = 8
    queue_depth: int = 16
    pass_tokens: int = 512
    #: Tokens of prompt prefix that an instance keeps for later requests; 0: no prefix cache.
    prefix_cache_tokens: int = 0
    #: Reject what cannot have its first token by then; None: never.
    first_token_deadline: float | None = None
    #: Of one instance, in any currency; None: cost is not known.
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        least = {"instances": 1, "prefill_instances": 0, "max_sequences": 1, "queue_depth": 0, "pass_tokens": 2}
        for name, bound in (least | {"prefix_cache_tokens": 0}).items():
            if getattr(self, name) < bound:
                raise ValueError(f"CloudProfile.{name} is {getattr(self, name)}; it must be at least {bound}")
        if self.prefill_instances >= self.instances:
            raise ValueError(
                f"CloudProfile.prefill_instances is {self.prefill_instances} of {self.instances} instances; "
                "at least one must be left to decode"
            )
        for name in ("first_token_deadline", "price_per_hour"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"CloudProfile.{name} is {value!r}; it must be above 0, or None")

    @property
    def name(self) -> str:
        return self.hardware.name


@dataclass(frozen=True, slots=True)
class Request:
    """One question and how long its answer turned out to be."""

    #: Since the workload's beginning.
    arrival: float
    prompt_tokens: int
    output_tokens: int
    #: One per block of the prompt from its beginning (see `Workload.block_tokens`): equal hashes, equal prefix. Empty:
    #: not known, nothing is shared.
    prefix_hashes: tuple[int, ...] = ()


@dataclass(slots=True)
class Skipped:
    """Rows of a trace that are no requests: how many, and the first few with what is wrong."""

    SHOWN = 5

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, row: int, problem: str) -> None:
        self.count += 1
        if len(self.examples) < self.SHOWN:
            self.examples.append(f"row {row}: {problem}")


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in order of arrival, read anew with each iteration and never held in memory as a whole."""

    name: str
    #: Where it comes from: a file with its format, or a generator with its parameters and seed.
    source: str
    #: Begins anew with every call; rows that are no requests go to the argument.
    stream: Callable[[Skipped], Iterator[Request]]
    #: Prompt tokens per prefix hash.
    block_tokens: int = 512

    def __iter__(self) -> Iterator[Request]:
        return self.stream(Skipped())

    def through(self, change: Callable[[Iterator[Request]], Iterator[Request]], what: str) -> Workload:
        """The same with `change` applied; `what` says so in `source`."""
        stream = self.stream
        return replace(self, source=f"{self.source}; {what}", stream=lambda skipped: change(stream(skipped)))
