"""Hardware profiles: how long a pass takes on hardware that is not here, from published or measured figures.

A profile is a JSON file; the ones that come with the package are in `model_runtime/hardware`. Each names where its
figures come from, and says which of them are approximate and why.
"""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
from msgspec import Meta

from model_runtime.errors import ModelFormatError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDER = Path(__file__).parent / "hardware"

_Positive: TypeAlias = Annotated[float, Meta(gt=0)]
_Text: TypeAlias = Annotated[str, Meta(min_length=1)]
#: (tokens, value) with rising tokens; between points linear, outside as the nearest point.
Points: TypeAlias = Annotated[tuple[tuple[Annotated[int, Meta(ge=1)], _Positive], ...], Meta(min_length=1)]


class HardwareProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of hardware running one model. Raises ValueError where points do not rise."""

    name: _Text
    #: What it stands for, in words: hardware, model, quantization, runtime.
    title: _Text
    #: Where the figures were published: publisher, address, version or date.
    source: _Text
    #: Which figures are not exactly the source's, and why.
    approximate: tuple[_Text, ...] = ()
    #: (prompt tokens, tokens/s averaged over the whole prefill of a prompt of that length).
    prefill_tokens_per_s: Points
    #: A prefill costs as much as the next multiple of this: graphs of a fixed shape compute padding too.
    prefill_block: Annotated[int, Meta(ge=1)] = 1
    #: (tokens in context, ms for one decoded token).
    decode_ms: Points
    #: Added to every pass.
    pass_overhead_ms: Annotated[float, Meta(ge=0)] = 0.0
    #: Standard deviation of a pass's time, relative to the time.
    jitter: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    #: What one more sequence that decodes adds to a pass, as a share of its own decode time: a pass reads the weights
    #: once for all. None: this hardware runs the sequences of a pass one after the other.
    batch_share: Annotated[float, Meta(ge=0, le=1)] | None = None

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
        return tokens / _interpolate(self.prefill_tokens_per_s, tokens) * 1000

    def pass_ms(self, chunks: Sequence[tuple[int, int]]) -> float:
        """A pass over chunks of (tokens in context before, new tokens), without jitter.

        A chunk of several tokens costs what the prompt costs up to its end, less what it costs up to its beginning:
        so a prompt costs the same however it is cut, but for padding and the overhead of more passes. No chunk costs
        less than one decoded token, for which the weights have to be read once.
        """
        prefills = [self._prefill(context, new) for context, new in chunks]
        reads = [_interpolate(self.decode_ms, context) for context, _ in chunks]
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
        # A few tokens are cheaper one by one than as a block that is mostly padding.
        return min(whole, new * _interpolate(self.decode_ms, context))


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """A shipped profile by its name (see `profile_names`), or one from a JSON file.

    Raises ModelNotFoundError, and ModelFormatError naming the field that is wrong.
    """
    path = Path(name_or_path)
    if path.suffix != ".json":
        path = _FOLDER / f"{name_or_path}.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(
            f"no hardware profile {str(name_or_path)!r} ({error.strerror}): "
            f"give the path of a .json file, or one of {', '.join(profile_names())}"
        ) from error
    try:
        return msgspec.json.decode(data, type=HardwareProfile)
    except msgspec.DecodeError as error:
        raise ModelFormatError(f"the hardware profile {path} is not valid: {error}") from error


def profile_names() -> list[str]:
    """The names of the profiles that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def _interpolate(points: Sequence[tuple[int, float]], tokens: int) -> float:
    after = bisect.bisect_left(points, tokens, key=lambda point: point[0])
    if after == 0:
        return points[0][1]
    if after == len(points):
        return points[-1][1]
    (low, start), (high, end) = points[after - 1], points[after]
    return start + (end - start) * (tokens - low) / (high - low)
