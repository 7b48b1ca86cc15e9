"""A Hugging Face folder (safetensors) becomes ONNX by Optimum, in a process of its own.

Optimum brings torch and pins other versions of what is used here, so it is a program to be called, not a dependency.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from model_runtime.errors import EngineUnavailableError, ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_AT_MOST_S = 3600.0


@contextlib.contextmanager
def as_onnx(model: Path, optimum_cli: str, say: Callable[[str], None]) -> Iterator[Path]:
    """`model` where it is ONNX already, else what `optimum-cli export onnx` makes of it, in a folder that goes again.

    Raises EngineUnavailableError where there is no such program, ModelFormatError where it fails."""
    has_onnx = any(model.glob("*.onnx")) or any(model.glob("onnx/*.onnx"))
    if not model.is_dir() or has_onnx or not any(model.glob("*.safetensors")):
        yield model
        return
    program = shutil.which(optimum_cli)
    if program is None:
        raise EngineUnavailableError(
            f"{model} holds safetensors and no ONNX, and {optimum_cli} is not there to export it: pip install "
            "'optimum-onnx[onnxruntime]' into an environment of its own, and name its optimum-cli with --optimum-cli"
        )
    with tempfile.TemporaryDirectory(prefix="pd-models-") as folder:
        say(f"{model} to ONNX, by {program}")
        command = [program, "export", "onnx", "--model", str(model), "--task", "text-generation-with-past", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_AT_MOST_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ModelFormatError(f"{program} was not done with {model} within {_AT_MOST_S:g} s") from error
        if done.returncode:
            raise ModelFormatError(f"{program} cannot export {model}: {done.stderr.strip()[-2000:]}")
        yield Path(folder)
