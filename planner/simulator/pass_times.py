"""How long passes take on one kind of hardware, remembered: a simulation asks for the same ones again and again."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from device_sdk.generation.chunks import chunk_at
from model_runtime.profiles.hardware import interpolate

if TYPE_CHECKING:
    from model_runtime.profiles import HardwareProfile

#: Answers remembered of each kind.
REMEMBERED = 65_536


class PassTimes:
    """The figures of `profile`, without jitter. `chunk`: prompt tokens in one pass of the SDK, the compiled length, or
    what takes about as long as the SDK lets a pass take."""

    def __init__(self, profile: HardwareProfile) -> None:
        self.profile = profile
        remember = functools.lru_cache(maxsize=REMEMBERED)
        #: Seconds of a pass over `new` tokens after `context`: (context, new).
        self.seconds = remember(lambda context, new: profile.pass_ms([(context, new)]) / 1000)
        #: Milliseconds of one decoded token in a context, and of a prompt in one go.
        self.decode_ms = remember(lambda context: interpolate(profile.decode_ms, context))
        self.prompt_ms = remember(profile.prompt_ms)
        #: Prompt tokens per second over a whole prompt, as a forecast before anything was measured.
        self.rate = remember(self._rate)
        block = profile.prefill_block
        self.chunk = block if block > 1 else chunk_at(interpolate(profile.prefill_tokens_per_s, 1024))

    def tpot(self, context: int) -> float:
        """Seconds for one decoded token."""
        return self.seconds(context, 1)

    def _rate(self, prompt: int) -> float:
        chunk, block = self.chunk, self.profile.prefill_block
        total = sum(self.seconds(start, min(chunk, prompt - start)) for start in range(0, prompt, chunk))
        return -(-prompt // block) * block / total
