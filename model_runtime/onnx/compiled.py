"""Compiled graphs kept on disk (EPContext), so that an NPU's compiler runs once and not at every start."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort

from model_runtime.onnx.files import fingerprint
from model_runtime.onnx.providers import KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from model_runtime.onnx.files import ModelFiles

_GRAPH = "compiled.onnx"


@dataclass(frozen=True, slots=True)
class CompiledGraph:
    """Where the compiled form of one graph is, or will be."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / _GRAPH

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def written_by(self, options: ort.SessionOptions) -> Iterator[None]:
        """The session that is made inside with `options` writes it; it appears whole or not at all. A folder that
        cannot be written costs the compilation at every start, and nothing else."""
        temporary = self.folder.with_name(f".{self.folder.name}-{uuid.uuid4().hex}")
        try:
            temporary.mkdir(parents=True)
        except OSError:
            yield
            return
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_embed_mode", "0")
        options.add_session_config_entry("ep.context_file_path", str(temporary / _GRAPH))
        try:
            yield
            if (temporary / _GRAPH).is_file():
                # Where another process was quicker, its own is as good.
                with contextlib.suppress(OSError):
                    temporary.rename(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def compiled_graph(
    files: ModelFiles, providers: Sequence[str], options: Mapping[str, Mapping[str, str]], cache: Path
) -> CompiledGraph | None:
    """None where the first provider does not compile. A graph, version or option that changes makes it another one."""
    known = KNOWN.get(providers[0])
    if known is None or not known.compiles:
        return None
    version = importlib.metadata.version(known.package.replace("_", "-")) if known.package is not None else ""
    facts = (
        fingerprint(files),
        ort.__version__,
        version,
        sorted((name, sorted(options[name].items())) for name in options),
    )
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return CompiledGraph(cache / f"{files.graph_path.stem}-{key}")
