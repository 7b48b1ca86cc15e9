"""ShareGPT-like conversations: `[{"id": …, "conversations": [{"from": "human", "value": …}, …]}, …]`, or one object a
line. They have texts but no arrival times: the caller says at which rate they come."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from planner.core import Request, Skipped, Workload
from planner.errors import WorkloadError
from planner.workloads.traces import SHAREGPT, opened

#: Characters per token of English text, where no tokenizer is given: a rule of thumb, and said to be one.
CHARACTERS_PER_TOKEN = 4.0
BLOCK_TOKENS = 512
_PIECE = 1 << 16
#: Characters of one conversation at most: a bracket that is never closed must not pull the whole file into memory.
_LONGEST = 1 << 25
_USER, _ASSISTANT = {"human", "user"}, {"gpt", "assistant", "chatgpt", "bard", "bing"}


def estimate_tokens(text: str) -> int:
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN))


def open_conversations(
    path: str | Path, *, rate: float, seed: int = 0, count: Callable[[str], int] | None = None
) -> Workload:
    """A request for each answer: the conversation so far is its prompt. `rate`: requests per second, Poisson arrivals.
    `count`: tokens of a text; by default a rule of thumb. Raises WorkloadError where the file cannot be opened."""
    if not rate > 0:
        raise WorkloadError(f"the rate is {rate!r} requests/s; above 0 is expected")
    path = Path(path)
    opened(path).close()
    how = "tokens counted" if count else f"tokens estimated at {CHARACTERS_PER_TOKEN:g} characters each"

    def stream(skipped: Skipped) -> Iterator[Request]:
        rng = random.Random(seed)
        now = 0.0
        for number, record in enumerate(_objects(path, skipped), start=1):
            for prompt, output, hashes in _answers(record, number, skipped, count or estimate_tokens):
                yield Request(now, prompt, output, hashes)
                now += rng.expovariate(rate)

    return Workload(
        path.stem, f"{path.name}, {SHAREGPT}; {how}, Poisson at {rate:g}/s, seed {seed}", stream, BLOCK_TOKENS
    )


def _answers(
    record: object, number: int, skipped: Skipped, count: Callable[[str], int]
) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    turns = record.get("conversations", record.get("messages")) if isinstance(record, dict) else None
    if not isinstance(turns, list):
        skipped.note(number, "it has no list 'conversations'")
        return
    name = str(record.get("id", number)) if isinstance(record, dict) else str(number)
    so_far = 0
    for turn in turns:
        role = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
        text = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
        if not isinstance(text, str) or not isinstance(role, str):
            skipped.note(number, "a turn has no 'from' or no text")
            return
        tokens = count(text)
        if role in _ASSISTANT and so_far and text:
            # Whole blocks only: the last one still grows with the conversation.
            blocks = range(so_far // BLOCK_TOKENS)
            yield so_far, tokens, tuple(zlib.crc32(f"{name}:{block}".encode()) for block in blocks)
        so_far += tokens


def _objects(path: Path, skipped: Skipped) -> Iterator[object]:
    """The objects of a JSON array, or of JSON lines, one at a time: a piece of the file is all that is held."""
    decoder = json.JSONDecoder()
    with opened(path) as file:
        text, at, number = "", 0, 0
        while True:
            at = _skip(text, at)
            if at < len(text):
                try:
                    record, at = decoder.raw_decode(text, at)
                except json.JSONDecodeError as error:
                    more = file.read(_PIECE)
                    if not more or len(text) - at > _LONGEST:
                        skipped.note(number + 1, f"the rest of the file is no JSON: {error.msg}")
                        return
                    text, at = text[at:] + more, 0
                    continue
                number += 1
                yield record
            else:
                text, at = file.read(_PIECE), 0
                if not text:
                    return


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n,[]":
        at += 1
    return at
