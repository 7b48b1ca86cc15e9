"""The command line of `pd-cloud calibrate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from cloud_service.refinement import calibration
from cloud_service.refinement.calibrate.command import calibrate, report, write
from cloud_service.refinement.calibrate.probes import Probe, ProbeError, default_text, make_probes, read_probes
from cloud_service.refinement.calibration import CalibrationError
from model_runtime.core import Engine
from model_runtime.errors import ModelRuntimeError
from model_runtime.loading import load_engine

#: What `run` raises where it cannot be done.
FAILURES = (ProbeError, CalibrationError, ModelRuntimeError, OSError, UnicodeDecodeError)

_EPILOG = f"""\
examples:
  pd-cloud calibrate demos/models/cloud
  pd-cloud calibrate model.gguf --text manual.txt --tokens 2000 8000
  pd-cloud calibrate model.gguf --probes questions.jsonl --out model.refinement.json

A probe file holds one JSON object a line: {{"text": …, "question": …, "evidence": [[start, end], …]}} with evidence in
characters of the text, or left out where the answer rests on all of it, as in counting. Questions like those that
will be asked calibrate best. `pd-cloud serve` loads {calibration.FILE_NAME} beside the model, or --refine-calibration.
"""


def add_parser(commands: Any) -> None:
    """Put `calibrate` among the subcommands."""
    parser = commands.add_parser(
        "calibrate",
        help="find the heads of a model that retrieve, for prompt refinement",
        description="Find the attention heads that retrieve best, and where the guard draws its line; write a file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="as in pd-cloud serve --model")
    parser.add_argument("--text", type=Path, help="text to plant facts in (default: Python's own help)")
    parser.add_argument("--probes", type=Path, help="a file of probes instead")
    parser.add_argument("--out", type=Path, help=f"file to write (default: {calibration.FILE_NAME} beside the model)")
    parser.add_argument("--count", type=int, default=60, help="facts to plant (default 60)")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[600, 1200, 2000], help="lengths (default 600 1200 2000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the probes (default 0)")
    parser.add_argument("--engine", choices=("auto", "onnx", "llama"), default="auto", help="what runs the model")
    parser.add_argument("--threads", type=int, help="CPU threads (default: what the engine chooses)")


def run(given: argparse.Namespace) -> str:
    """What to print. Raises one of FAILURES."""
    out = given.out or calibration.beside(given.model)
    if out is None:
        raise CalibrationError(f"{given.model} is not on this disk: say where to write, with --out")
    engine = load_engine(given.model, engine=given.engine, max_sequences=1, threads=given.threads, tap_layers="all")
    with engine:
        outcome = calibrate(engine, _probes(given, engine), progress=_progress)
        write(outcome, engine, out)
    return f"{report(outcome)}\nwritten to {out}"


def _probes(given: argparse.Namespace, engine: Engine) -> list[Probe]:
    if given.probes is not None:
        return read_probes(given.probes)
    text = default_text() if given.text is None else given.text.read_text("utf-8")
    encode = engine.tokenizer.encode
    lengths = tuple(length for length in given.tokens if length <= engine.info.context_length)
    if not lengths:
        raise ProbeError(f"--tokens asks for more than this model's context of {engine.info.context_length}")
    return make_probes(text, lambda part: len(encode(part)), lengths=lengths, count=given.count, seed=given.seed)


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\rprobe {done} of {of}", end="" if done < of else "\n", file=sys.stderr, flush=True)  # noqa: T201
