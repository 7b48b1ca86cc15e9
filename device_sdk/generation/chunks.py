"""How many prompt tokens go into one pass where no plan says. Pure."""

from __future__ import annotations

#: A cancellation waits for one pass at most, and a pass is how often the forecast learns.
PASS_SECONDS, LEAST_CHUNK, LARGEST_CHUNK, UNKNOWN_CHUNK = 0.1, 32, 512, 128
#: Scores of attention in one pass, its tokens times those before them: engines hold them for every head at once, which
#: at 4,000 tokens in context is more memory than everything else.
MOST_SCORES = 2**18


def chunk_at(rate: float, *, least: int = LEAST_CHUNK) -> int:
    """Tokens of a pass of about PASS_SECONDS on hardware that reads `rate` tokens a second."""
    return min(max(int(PASS_SECONDS * rate), least), LARGEST_CHUNK)


def within_memory(chunk: int, fed: int) -> int:
    """As much of `chunk` as MOST_SCORES allows behind `fed` tokens, and LEAST_CHUNK however many these are."""
    return min(chunk, max(LEAST_CHUNK, MOST_SCORES // (fed + 1)))
