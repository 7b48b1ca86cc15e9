"""Hardware profiles: how long a pass takes on hardware that is not here, from published or measured figures.

A profile is a JSON file; the ones that come with the package are in `model_runtime/hardware`. Each names where its
figures come from, and says which of them are approximate and why.
"""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from model_runtime.profiles.provenance import Measurement, NotNegative, Positive, Text, Version, read_profile, shipped

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDER = "hardware"

#: (tokens, value) with rising tokens; between points linear, outside as the nearest point.
Points: TypeAlias = Annotated[tuple[tuple[Annotated[int, Meta(ge=1)], Positive], ...], Meta(min_length=1)]


class HardwareProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of hardware running one model. Raises ValueError where points do not rise."""

    version: Version = 1
    name: Text
    kind: Literal["device", "datacentre"] = "device"
    #: What it stands for, in words: hardware, model, quantization, runtime.
    title: Text
    #: Where the figures were published: publisher, address, version or date.
    source: Text
    #: Which figures are not exactly the source's, and why.
    approximate: tuple[Text, ...] = ()
    #: None: the figures were published by `source`.
    measured: Measurement | None = None
    #: (prompt tokens, tokens/s averaged over the whole prefill of a prompt of that length).
    prefill_tokens_per_s: Points
    #: A prefill costs as much as the next multiple of this: graphs of a fixed shape compute padding too.
    prefill_block: Annotated[int, Meta(ge=1)] = 1
    #: (tokens in context, ms for one decoded token).
    decode_ms: Points
    #: Added to every pass.
    pass_overhead_ms: NotNegative = 0.0
    #: Standard deviation of a pass's time, relative to the time.
    jitter: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    #: The same of a whole answer's mean speed against the next answer's: what other apps and heat do to all of it.
    spread: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    #: What one more sequence that decodes adds to a pass, as a share of its own decode time: a pass reads the weights
    #: once for all. None: this hardware runs the sequences of a pass one after the other.
    batch_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    #: What this hardware needs and draws; None where the source does not say.
    load_ms: NotNegative | None = None
    memory_mib: NotNegative | None = None
    #: How much longer the first pass after loading takes.
    warm_up_ms: NotNegative | None = None
    #: (seconds of uninterrupted work, share of the first speed that is left): heat.
    sustained: tuple[tuple[NotNegative, Positive], ...] = ()
    #: Watts above idle while it prefills and while it decodes.
    prefill_watts: Positive | None = None
    decode_watts: Positive | None = None
    #: Bytes of KV cache for one token of the model.
    kv_bytes_per_token: Annotated[int, Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        for field, points in (("prefill_tokens_per_s", self.prefill_tokens_per_s), ("decode_ms", self.decode_ms)):
            tokens = [tokens for tokens, _ in points]
            if any(after <= before for before, after in itertools.pairwise(tokens)):
                raise ValueError(f"{field} must have rising token counts, not {tokens}")
        times = [self.prompt_ms(tokens) for tokens, _ in self.prefill_tokens_per_s]
        if any(after <= before for before, after in itertools.pairwise(times)):
            raise ValueError("prefill_tokens_per_s must not rise so fast that a longer prompt takes less time")

    def prompt_ms(self, tokens: int) -> float:
        """The prefill of a prompt of `tokens` tokens in one go, without overhead, jitter or padding."""
        return tokens / interpolate(self.prefill_tokens_per_s, tokens) * 1000

    def pass_ms(self, chunks: Sequence[tuple[int, int]]) -> float:
        """A pass over chunks of (tokens in context before, new tokens), without jitter.

        A chunk of several tokens costs what the prompt costs up to its end, less what it costs up to its beginning:
        so a prompt costs the same however it is cut, but for padding and the overhead of more passes. No chunk costs
        less than one decoded token, for which the weights have to be read once.
        """
        prefills = [self._prefill(context, new) for context, new in chunks]
        reads = [interpolate(self.decode_ms, context) for context, _ in chunks]
        if self.batch_share is None:
            return self.pass_overhead_ms + sum(map(max, prefills, reads))
        decodes = [read for read, (_, new) in zip(reads, chunks, strict=True) if new == 1]
        others = sum(decodes) - max(decodes, default=0.0)
        return self.pass_overhead_ms + max(sum(prefills), *reads) + self.batch_share * others

    def _prefill(self, context: int, new: int) -> float:
        if new == 1:
            return 0.0
        padded = -(-new // self.prefill_block) * self.prefill_block
        whole = self.prompt_ms(context + padded) - self.prompt_ms(context)
        if padded == new:
            return whole
        # A few tokens are cheaper one by one, each in a pass of its own, than as a block that is mostly padding.
        return min(whole, new * interpolate(self.decode_ms, context) + (new - 1) * self.pass_overhead_ms)


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """A shipped profile by its name (see `profile_names`), or one from a JSON file.

    Raises ModelNotFoundError, and ModelFormatError naming the field that is wrong.
    """
    return read_profile(HardwareProfile, _FOLDER, "hardware", name_or_path)


def profile_names() -> list[str]:
    """The names of the profiles that come with the package."""
    return shipped(_FOLDER)


def interpolate(points: Sequence[tuple[int, float]], tokens: int) -> float:
    after = bisect.bisect_left(points, tokens, key=lambda point: point[0])
    if after == 0:
        return points[0][1]
    if after == len(points):
        return points[-1][1]
    (low, start), (high, end) = points[after - 1], points[after]
    return start + (end - start) * (tokens - low) / (high - low)
