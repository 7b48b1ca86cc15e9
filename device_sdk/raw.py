"""A prompt that is no chat."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """Text that is the prompt as it stands, with no chat template around it, for completing code or text.

    Here, and nowhere else, the text of a special token (`<|fim_prefix|>`) stands for that token. Needs the device's
    tokenizer; a cloud with another one is not asked, as only its own template could put the prompt into its tokens. It
    is not refined.
    """

    text: str
