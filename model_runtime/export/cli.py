"""`pd-models`: models made ready for devices."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model_runtime.errors import ModelRuntimeError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST_PROMPTS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 where the model or the input is at fault, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="pd-models", description=__doc__.partition(":")[2].strip())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_export(commands.add_parser("export-npu", help="graphs of fixed shapes for an NPU, quantized"))
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except ModelRuntimeError as error:
        print(f"pd-models: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "From a decoder (a folder in Optimum's ONNX layout, an .onnx file, or a Hugging Face folder) to graphs of "
        "fixed shapes with QDQ weights and activations, calibrated on prompts, and what that costs in accuracy."
    )
    parser.add_argument("model", metavar="MODEL", type=Path)
    parser.add_argument("target", metavar="TARGET", type=Path, help="the folder to write; it must not be there yet")
    parser.add_argument(
        "--prompts",
        type=Path,
        help='.jsonl of {"prompt": "..."}, or one .txt; the last fifth measures, the rest calibrates',
    )
    parser.add_argument("--lengths", default="64,1", help="tokens of a pass, each compiled (default: %(default)s)")
    parser.add_argument("--context", type=int, default=1024, help="tokens of context (default: %(default)s)")
    parser.add_argument("--weights", type=int, choices=(4, 8), default=8, help="bits (default: %(default)s)")
    parser.add_argument("--float", action="store_true", help="float32: fixed shapes alone, no quantization")
    parser.add_argument(
        "--compile", metavar="PROVIDER", help="compile now and keep the result, such as QNNExecutionProvider"
    )
    parser.add_argument("--answer-tokens", type=int, default=40, help="of the answers compared (default: %(default)s)")
    parser.add_argument(
        "--optimum-cli", default="optimum-cli", help="what exports a Hugging Face folder to ONNX first (%(default)s)"
    )
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from model_runtime.errors import BadInputError, EngineUnavailableError

    try:
        from model_runtime.export.npu import Plan, export_npu
        from model_runtime.export.quantization import Grid
    except ImportError as error:
        raise EngineUnavailableError(f"{error}: exporting needs pip install 'pd-device[export]'") from error
    from model_runtime.export.accuracy import compare
    from model_runtime.export.hugging_face import as_onnx
    from model_runtime.export.prompts import read_prompts
    from model_runtime.onnx import OnnxEngine
    from model_runtime.onnx.files import find_model
    from model_runtime.tokenizers import load_tokenizer

    try:
        lengths = tuple(int(part) for part in options.lengths.split(","))
    except ValueError:
        raise BadInputError(f"--lengths must be numbers with commas, such as 64,1, not {options.lengths!r}") from None
    plan = Plan(lengths, options.context, None if options.float else Grid(weights=options.weights))
    with as_onnx(options.model, options.optimum_cli, _say) as source:
        tokenizer = load_tokenizer(find_model(source).folder)
        prompts = read_prompts(options.prompts, tokenizer) if options.prompts is not None else []
        if plan.grid is not None and len(prompts) < _LEAST_PROMPTS:
            raise BadInputError(
                f"quantizing needs --prompts with at least {_LEAST_PROMPTS} of them, like those the model will see; "
                f"there are {len(prompts)}"
            )
        held_out = max(len(prompts) // 5, 1) if prompts else 0
        calibration, measured = prompts[: len(prompts) - held_out], prompts[len(prompts) - held_out :]
        export_npu(source, options.target, plan, calibration, _say)
        if measured:
            with OnnxEngine.load(source) as before, OnnxEngine.load(options.target) as after:
                found = compare(before, after, measured, options.answer_tokens)
            _say(f"on {len(measured)} prompts held out, both on the CPU: {found}")
    if options.compile is not None:
        with OnnxEngine.load(options.target, providers=(options.compile,)) as compiled:
            _say(f"compiled for {compiled.info.hardware}: {compiled.info.details['nodes']} nodes")
    size = sum(file.stat().st_size for file in options.target.rglob("*") if file.is_file())
    _say(f"{options.target}: {size / 1e6:.1f} MB, {plan.slots} tokens of context")


def _say(message: str) -> None:
    print(message, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
