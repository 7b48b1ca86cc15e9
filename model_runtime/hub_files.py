"""What a model on the Hugging Face Hub is called, and which files of its repository are needed to run it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote

from model_runtime.errors import ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

EngineName: TypeAlias = Literal["auto", "onnx", "llama"]

_SPEC = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_ENGINES: dict[str, EngineName] = {".onnx": "onnx", ".gguf": "llama"}

#: What belongs to an ONNX model beside the graph; looked for in the graph's folder and in the one above.
_SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True, slots=True)
class HubSpec:
    """Where a model is on the Hub. `file` is a path in the repository; None leaves the choice to us."""

    repository: str
    revision: str = "main"
    file: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}@{self.revision}" + (f"/{self.file}" if self.file else "")


def is_hub_spec(spec: str | Path) -> bool:
    return isinstance(spec, str) and spec.startswith("hf://")


def parse_spec(spec: str) -> HubSpec:
    """Raises ModelNotFoundError where `spec` is not of the form. A `/` in a revision is written `%2F`."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ModelNotFoundError(f"{spec!r} is no model on the Hub: expected hf://owner/name[@revision][/file]")
    return HubSpec(match["repository"], unquote(match["revision"] or "main"), match["file"])


@dataclass(frozen=True, slots=True)
class Choice:
    """What is needed of a repository, in the order of download: the model's own file last."""

    model: str
    files: tuple[str, ...]


def choose(names: Collection[str], spec: HubSpec, engine: EngineName) -> Choice:
    """Pick a model among a repository's files. Raises ModelNotFoundError, listing what there is to choose from."""
    models = [name for name in names if _is_model(name) and engine in ("auto", _ENGINES[PurePosixPath(name).suffix])]
    wanted = [name for name in models if spec.file is None or name == spec.file or name.startswith(spec.file + "/")]
    if len(wanted) > 1:
        # As exports name them: the plain one, in the root or in a folder of its own.
        plain = [name for name in wanted if name in ("model.onnx", "onnx/model.onnx")]
        wanted = [min(plain, key=len)] if plain and all(name.endswith(".onnx") for name in wanted) else wanted
    if len(wanted) != 1:
        found = "; ".join(sorted(models)) or "no .onnx or .gguf file"
        problem = "several models fit" if wanted else "there is no such model file"
        raise ModelNotFoundError(
            f"{spec}: {problem}. Name one as hf://{spec.repository}/FILE. The repository holds: {found}"
        )
    model = PurePosixPath(wanted[0])
    if model.suffix == ".gguf":
        shards = _SHARD.fullmatch(model.name)
        count = int(shards["count"]) if shards else 1
        files = [
            str(model.with_name(f"{shards['stem']}-{index:05}-of-{count:05}.gguf")) if shards else str(model)
            for index in range(count, 0, -1)
        ]
    else:
        weights = [name for name in names if name.startswith(str(model)) and name != str(model)]
        beside = [str(folder / name) for folder in (model.parent, model.parent.parent) for name in _SIDE_FILES]
        files = [*sorted({name for name in beside if name in names}), *sorted(weights), str(model)]
    return Choice(str(model), tuple(files))


def _is_model(name: str) -> bool:
    path = PurePosixPath(name)
    shard = _SHARD.fullmatch(path.name)
    # A projector for images is no model of its own; of a model in parts the first stands for all.
    return path.suffix in _ENGINES and "mmproj" not in path.name and (shard is None or "-00001-of-" in path.name)
