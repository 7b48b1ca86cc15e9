"""Run by LLMLingua's own interpreter: python llmlingua_worker.py MODEL JOBS.json COMPRESSED.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tiktoken
from llmlingua import PromptCompressor
from tokenizers import Tokenizer


class Counter:
    """Stands in for OpenAI's tokenizer, which LLMLingua would download only to print how much was saved."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def encode(self, text: str, **_: object) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def options(method: str, ratio: float) -> dict[str, Any]:
    chosen: dict[str, Any] = {"rate": ratio, "concate_question": False, "context_budget": "+0"}
    if method == "longllmlingua":
        # Lines whole and in their order, so that an answer can still be quoted.
        chosen |= {
            "rank_method": "longllmlingua",
            "condition_in_question": "after_condition",
            "reorder_context": "original",
            "use_token_level_filter": False,
        }
    return chosen


def main() -> None:
    model, jobs, answers = map(Path, sys.argv[1:])
    counter = Counter(model)
    tiktoken.encoding_for_model = lambda _: counter
    compressor = PromptCompressor(str(model), device_map="cpu")
    found = []
    for job in json.loads(jobs.read_text(encoding="utf-8")):
        lines = [line for line in job["document"].split("\n") if line.strip()]
        result = compressor.compress_prompt(lines, question=job["question"], **options(job["method"], job["ratio"]))
        text = result["compressed_prompt"].removesuffix(job["question"]).strip()
        found.append("\n".join(line for line in text.split("\n") if line.strip()))
    answers.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
