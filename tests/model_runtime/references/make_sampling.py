"""Writes sampling.json: what transformers' logits processors make of random logits.

Needs an environment with transformers and torch (written with 4.57.6 and 2.13.0), which the tests do without:

    python tests/model_runtime/references/make_sampling.py
"""

import itertools
import json
from pathlib import Path

import torch
import transformers
from transformers import generation

VOCABULARY = 40


def processors(case: dict[str, float]) -> generation.LogitsProcessorList:
    """In the order in which `generate` puts them."""
    found = generation.LogitsProcessorList()
    if case.get("repetition_penalty", 1.0) != 1.0:
        found.append(generation.RepetitionPenaltyLogitsProcessor(penalty=case["repetition_penalty"]))
    found.append(generation.TemperatureLogitsWarper(case["temperature"]))
    if case.get("top_k"):
        found.append(generation.TopKLogitsWarper(top_k=int(case["top_k"])))
    if case.get("top_p", 1.0) < 1.0:
        found.append(generation.TopPLogitsWarper(top_p=case["top_p"]))
    if case.get("min_p"):
        found.append(generation.MinPLogitsWarper(min_p=case["min_p"]))
    return found


def main() -> None:
    torch.manual_seed(20261121)
    grid = itertools.product((0.3, 0.8, 1.7), (0, 1, 7), (1.0, 0.9, 0.35), (0.0, 0.1), (1.0, 1.3))
    cases = []
    for temperature, top_k, top_p, min_p, repetition_penalty in grid:
        logits = (torch.randn(VOCABULARY) * 3).round(decimals=3)
        prompt, output = torch.randint(VOCABULARY, (6,)), torch.randint(VOCABULARY, (4,))
        case = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
        }
        scores = processors(case)(torch.cat([prompt, output])[None], logits[None].clone())
        probabilities = torch.softmax(scores.double(), dim=-1)[0]
        cases.append(
            {
                "params": case,
                "prompt": prompt.tolist(),
                "output": output.tolist(),
                "logits": [round(value, 3) for value in logits.tolist()],
                "probabilities": {i: round(p, 7) for i, p in enumerate(probabilities.tolist()) if p > 0},
            }
        )
    reference = {"made_with": f"transformers {transformers.__version__}, torch {torch.__version__}", "cases": cases}
    text = json.dumps(reference, separators=(",", ":")).replace('{"params"', '\n{"params"')
    (Path(__file__).parent / "sampling.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
