"""`pd-doctor`: what this machine has, what of it models can really use, how fast it is, and what to fix."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from model_runtime.doctor.engines import Part, engines, providers
from model_runtime.doctor.machine import Machine, this_machine
from model_runtime.doctor.profile import Measured, measure
from model_runtime.errors import ModelRuntimeError
from model_runtime.loading import load_engine

if TYPE_CHECKING:
    from collections.abc import Sequence

_CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Findings:
    machine: Machine
    engines: list[Part]
    providers: list[Part]
    model: str | None
    #: What ran the model; None where nothing was measured.
    hardware: str | None
    nodes: str | None
    measured: Measured | None
    fixes: list[str]

    @property
    def healthy(self) -> bool:
        """Whether an engine can be used, and the model (where one was tried) was measured."""
        return any(part.usable for part in self.engines) and (self.model is None or self.measured is not None)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where all that was asked for works, 1 where not, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="pd-doctor", description=__doc__.partition(":")[2].strip())
    parser.add_argument(
        "model", nargs="?", help="what to measure: a folder or file (default: the bundled device model)"
    )
    parser.add_argument("--provider", default=_CPU, help="of ONNX Runtime, to measure (default: %(default)s)")
    parser.add_argument("--allow-cpu-fallback", action="store_true", help="let the CPU run what the provider does not")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring; 0: none (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    options = parser.parse_args(arguments)
    findings = examine(options)
    if options.json:
        text = msgspec.json.format(msgspec.json.encode(asdict(findings)), indent=2).decode()
    else:
        text = "\n".join(_lines(findings))
    print(text)  # noqa: T201
    return 0 if findings.healthy else 1


def examine(options: argparse.Namespace) -> Findings:
    engine_parts = engines()
    parts = providers() if engine_parts[0].usable else []
    fixes = [part.fix for part in (*engine_parts, *parts) if part.fix]
    spec = options.model or _bundled()
    hardware = nodes = measured = None
    if spec is None:
        fixes.append("name a model to measure this machine with it: pd-doctor MODEL")
    elif options.seconds > 0:
        try:
            engine, measured = measure(
                lambda: load_engine(
                    spec,
                    providers=(options.provider,),
                    allow_cpu_fallback=options.allow_cpu_fallback,
                    threads=options.threads,
                ),
                options.seconds,
            )
        except ModelRuntimeError as error:
            fixes.insert(0, str(error))
        else:
            hardware, nodes = engine.info.hardware, engine.info.details.get("nodes")
            engine.shutdown()
    tried = spec if options.seconds > 0 else None
    return Findings(this_machine(), engine_parts, parts, tried, hardware, nodes, measured, fixes)


def _bundled() -> str | None:
    """The bundled device model, where this is a checkout that has it. Nothing is imported."""
    found = importlib.util.find_spec("demos")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        model = Path(folder) / "models" / "device"
        if model.is_dir():
            return str(model)
    return None


def _lines(findings: Findings) -> list[str]:
    machine = findings.machine
    memory = f", {machine.memory_gb:.1f} GB of memory" if machine.memory_gb is not None else ""
    lines = [f"{machine.chip}, {machine.cores} cores{memory}", f"{machine.system}, Python {machine.python}"]
    for title, parts in (("Engines", findings.engines), ("Execution providers of ONNX Runtime", findings.providers)):
        lines += ["", title]
        lines += [f"  {'yes' if part.usable else ' no'}  {part.name:26}{part.detail}" for part in parts]
    if findings.measured is not None:
        found = findings.measured
        nodes = f"; nodes: {findings.nodes}" if findings.nodes else ""
        lines += [
            "",
            f"Measured for {found.seconds:.1f} s: {findings.model} on {findings.hardware}{nodes}",
            f"  prefill {found.prefill_tokens_per_s:,.0f} tokens/s in passes of {found.chunk}",
            f"  decode {found.decode_ms:.1f} ms a token at up to {found.context:,} tokens",
            f"  loaded in {found.load_s:.1f} s",
        ]
    if findings.fixes:
        lines += ["", "To fix", *(f"  {fix}" for fix in findings.fixes)]
    return lines


if __name__ == "__main__":
    sys.exit(main())
