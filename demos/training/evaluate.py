"""Exact-match accuracy of a model folder on held-out logbooks, on ONNX Runtime, as it ships.

python -m demos.training.evaluate MODEL_DIR --lengths 500 1000 2000 4000 --cases 50 --json FILE
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from tokenizers import Tokenizer

from demos.training.logbook import held_out

if TYPE_CHECKING:
    from demos.training.logbook import Case

KINDS = ("lookup", "report", "count")
_CHUNK = 512


class Model:
    """Just enough of an engine to check answers: one sequence, fed in chunks."""

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        self._template = jinja2.Environment(autoescape=False).from_string(settings["chat_template"])  # noqa: S701
        self._end = settings["eos_token"]
        self._outputs = [output.name for output in self._session.get_outputs()]
        past = [each for each in self._session.get_inputs() if each.name.startswith("past")]
        self._empty = {each.name: np.zeros((1, each.shape[1], 0, each.shape[3]), np.float32) for each in past}

    def tokens(self, case: Case) -> tuple[list[int], list[int]]:
        prompt = self._template.render(messages=case.messages, add_generation_prompt=True)
        encode = self.tokenizer.encode
        return (
            encode(prompt, add_special_tokens=False).ids,
            encode(case.answer + self._end, add_special_tokens=False).ids,
        )

    def is_greedy(self, prompt: list[int], answer: list[int]) -> bool:
        """Whether greedy decoding gives this answer: every token of it is the likeliest after those before."""
        ids = np.array(prompt + answer[:-1], np.int64)
        past: dict[str, Any] = self._empty
        first = len(prompt) - 1
        starts = [*range(0, first, _CHUNK), first]
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            feeds = {
                "input_ids": ids[None, start:stop],
                "attention_mask": np.ones((1, stop), np.int64),
                "position_ids": np.arange(start, stop)[None],
                **past,
            }
            logits, *present = self._session.run(None, feeds)
            past = dict(zip(self._empty, present, strict=True))
        return bool((logits[0].argmax(-1) == np.array(answer)).all())


def measure(folder: Path, lengths: list[int], cases: int, seed: int, threads: int) -> list[dict[str, Any]]:
    model = Model(folder, threads)
    rows: list[dict[str, Any]] = []
    for length in lengths:
        for kind in KINDS:
            right, prompts, answers = 0, [], []
            for case in held_out(kind, length, cases, seed):
                prompt, answer = model.tokens(case)
                right += model.is_greedy(prompt, answer)
                prompts.append(len(prompt))
                answers.append(len(answer))
            row = {
                "length": length,
                "kind": kind,
                "cases": cases,
                "exact": right / cases,
                "prompt_tokens": round(float(np.mean(prompts))),
                "answer_tokens": [min(answers), max(answers)],
            }
            rows.append(row)
            print(
                f"{length:5} {kind:7} {row['exact']:7.1%} of {cases}, prompts of {row['prompt_tokens']} tokens, "
                f"answers of {min(answers)}-{max(answers)}",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.model, options.lengths, options.cases, options.seed, options.threads)
    if options.json:
        options.json.write_text(json.dumps({"model": options.model.name, "seed": options.seed, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
