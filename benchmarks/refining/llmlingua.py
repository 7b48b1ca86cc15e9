"""LLMLingua (arXiv 2310.05736) as a peer: its compressor, with our own cloud model as the causal model it asks.

In an environment of its own, made once: its dependencies (PyTorch, a transformers of its time) are none of ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.refining.quality import RATIOS, Device, Kept, recall

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.refining.cases import Case
    from model_runtime.core import Tokenizer

#: 0.2.2 hands caches over as tuples, which later versions of transformers refuse.
REQUIREMENTS = ("torch==2.13.0", "llmlingua==0.2.2", "transformers==4.46.3")
#: `llmlingua` drops lines, then tokens, by their perplexity; `longllmlingua` (arXiv 2310.06839) drops lines by that of
#: the question behind them.
METHODS = ("llmlingua", "longllmlingua")
_TIMEOUT_S = 3600
#: Of each source, kind and length. A case takes it half a minute on two cores.
CASES = 5


def environment(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, which is made where it is not there: some minutes, 1.2 GB."""
    python, made = folder / "bin" / "python", folder / "made.json"
    wanted = json.dumps(REQUIREMENTS)
    if not made.exists() or made.read_text(encoding="utf-8") != wanted:
        print(f"LLMLingua's environment is made in {folder}: some minutes, once", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True, timeout=_TIMEOUT_S)
        made.write_text(wanted, encoding="utf-8")
    return python


def compared(cases: Sequence[Case], model: Path, folder: Path, device: Device, tokenizer: Tokenizer) -> Iterator[Kept]:
    """Its methods at every ratio on the first `CASES` of each source, kind and length, as `quality.kept_by` does for
    scorers. The question is never compressed.

    Raises subprocess.CalledProcessError where the environment cannot be made or its compressor fails.
    """
    cases = [case for case in cases if case.number < CASES]
    asked = [
        {"document": case.document, "question": case.question, "method": method, "ratio": ratio}
        for case in cases
        for method in METHODS
        for ratio in RATIOS
    ]
    of_case = [case for case in cases for _ in METHODS for _ in RATIOS]
    compressed = _compress(environment(folder), model, folder, asked)
    for case, job, document in zip(of_case, asked, compressed, strict=True):
        tokens = tokenizer.render_chat([{"role": "user", "content": f"{document}\n\n{case.question}"}])
        yield Kept(
            case.number,
            case.source,
            case.kind,
            case.length,
            str(job["method"]),
            float(str(job["ratio"])),
            len(tokens) / len(case.prompt.tokens),
            recall(case, document),
            device.is_right(tokens, case.answer),
        )


def _compress(python: Path, model: Path, folder: Path, asked: Sequence[dict[str, object]]) -> list[str]:
    jobs, answers = folder / "jobs.json", folder / "compressed.json"
    jobs.write_text(json.dumps(asked), encoding="utf-8")
    worker = Path(__file__).with_name("llmlingua_worker.py")
    # -P: this folder has a module of that name, too.
    subprocess.run(
        [python, "-P", "-W", "ignore", worker, model, jobs, answers], check=True, timeout=_TIMEOUT_S, stdout=sys.stderr
    )
    found: list[str] = json.loads(answers.read_text(encoding="utf-8"))
    return found
