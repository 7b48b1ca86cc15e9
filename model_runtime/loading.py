"""One way to load a model, wherever it is and whichever engine runs it."""

from __future__ import annotations

import dataclasses
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from model_runtime.core import Cancellation, Engine, Tokenizer
from model_runtime.errors import LoadCancelled, LoadTimeoutError, ModelFormatError, ModelNotFoundError
from model_runtime.hub_files import EngineName, is_hub_spec, parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is: first the download where there is one, then the load itself."""

    stage: Literal["download", "load"]
    #: Of this stage, from 0 to 1.
    fraction: float
    #: Of the download; 0 while loading.
    done_bytes: int = 0
    total_bytes: int = 0


def load_engine(
    spec: str | Path,
    *,
    engine: EngineName = "auto",
    context_length: int | None = None,
    max_sequences: int = 8,
    kv_tokens: int | None = None,
    threads: int | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    allow_cpu_fallback: bool = False,
    provider_options: Mapping[str, Mapping[str, str]] | None = None,
    gpu_layers: int = 0,
    flash_attention: bool = True,
    tap_layers: tuple[int, ...] | Literal["all"] = (),
    cancellation: Cancellation | None = None,
    progress: Callable[[LoadProgress], None] | None = None,
    timeout_s: float | None = None,
    cache_dir: Path | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Engine:
    """Load a model: a folder, an .onnx file, a .gguf file, or `hf://owner/name[@revision][/file]`.

    `engine="auto"` goes by the file, ONNX first where a folder holds both. `context_length` in tokens, None for the
    engine's choice; `threads` None likewise. For ONNX: `providers`, in this order and no others, with
    `provider_options` by name, and `allow_cpu_fallback`. For llama.cpp: `kv_tokens` of all sequences together (None for
    four contexts), `gpu_layers` (negative for all), `flash_attention`, and `tap_layers` whose attention will be asked
    for. What belongs to the other engine is not looked at.

    A model on the Hub is downloaded where it is not in the cache yet; what is in the cache needs no network
    (`model_runtime.hub.pull` looks for a newer version). `cache_dir`, `token` and `endpoint` are as there.

    `progress` is called in this thread. `cancellation` ends a download within a moment and a load as soon as the
    engine can. Raises a LoadError: ModelNotFoundError, ModelFormatError, EngineUnavailableError, ModelAccessError,
    DownloadError, DiskFullError, LoadTimeoutError after `timeout_s` in all, or LoadCancelled.
    """
    report = progress if progress is not None else lambda _: None
    with _Deadline(timeout_s, cancellation) as deadline:
        path = Path(spec)
        if is_hub_spec(spec):
            path = _from_hub(str(spec), engine, deadline, report, cache_dir, token, endpoint)
        report(LoadProgress("load", 0.0))
        if _engine_for(path, engine) == "llama":
            from model_runtime.llama.engine import LlamaEngine

            loaded: Engine = LlamaEngine.load(
                _gguf(path),
                context_length=context_length,
                max_sequences=max_sequences,
                kv_tokens=kv_tokens,
                threads=threads,
                gpu_layers=gpu_layers,
                flash_attention=flash_attention,
                tap_layers=tap_layers,
                cancellation=deadline.cancellation,
                progress=lambda fraction: report(LoadProgress("load", fraction)),
            )
        else:
            from model_runtime.onnx.engine import OnnxEngine

            loaded = OnnxEngine.load(
                path,
                providers=providers,
                threads=threads,
                context_length=context_length,
                max_sequences=max_sequences,
                allow_cpu_fallback=allow_cpu_fallback,
                provider_options=provider_options,
                cancellation=deadline.cancellation,
            )
    if is_hub_spec(spec):
        # In the cache, a model's folder is named after a commit.
        loaded.info = dataclasses.replace(loaded.info, model=parse_spec(str(spec)).repository)
    report(LoadProgress("load", 1.0))
    return loaded


def load_tokenizer_of(spec: str | Path, engine: EngineName = "auto", *, cache_dir: Path | None = None) -> Tokenizer:
    """The tokenizer of what `load_engine` loads, without an engine. A model on the Hub must be in the cache already:
    ModelNotFoundError says so. Raises a LoadError."""
    path = Path(spec)
    if is_hub_spec(spec):
        from model_runtime.hub import cached

        found = cached(str(spec), engine=engine, cache_dir=cache_dir)
        if found is None:
            raise ModelNotFoundError(f"{spec} is not in the cache: load or pull it first")
        path = found
    if _engine_for(path, engine) == "llama":
        from model_runtime.llama.model import Model
        from model_runtime.llama.tokenizer import LlamaTokenizer

        model = Model.load(_gguf(path), gpu_layers=0, cancellation=None, progress=None, vocabulary_only=True)
        tokenizer = LlamaTokenizer(model)
        weakref.finalize(tokenizer, model.free)
        return tokenizer
    from model_runtime.onnx.files import find_model
    from model_runtime.tokenizers import load_tokenizer

    return load_tokenizer(find_model(path).folder)


def _from_hub(
    spec: str,
    engine: EngineName,
    deadline: _Deadline,
    report: Callable[[LoadProgress], None],
    cache_dir: Path | None,
    token: str | None,
    endpoint: str | None,
) -> Path:
    from model_runtime.hub import DownloadProgress, cached, pull

    def downloaded(progress: DownloadProgress) -> None:
        done, total = progress.done_bytes, progress.total_bytes
        report(LoadProgress("download", done / total if total else 1.0, done, total))

    path = cached(spec, engine=engine, cache_dir=cache_dir)
    if path is None:
        path = pull(
            spec,
            engine=engine,
            cancellation=deadline.cancellation,
            progress=downloaded,
            cache_dir=cache_dir,
            token=token,
            endpoint=endpoint,
        )
    return path


def _engine_for(path: Path, engine: EngineName) -> Literal["onnx", "llama"]:
    if engine != "auto":
        return engine
    if not path.exists():
        raise ModelNotFoundError(
            f"{path} is not there: give a model's folder, an .onnx or .gguf file, or hf://owner/name"
        )
    if path.suffix == ".gguf":
        return "llama"
    if path.suffix == ".onnx":
        return "onnx"
    if path.is_file():
        raise ModelFormatError(f"{path} is neither an .onnx nor a .gguf file, which are what the engines here run")
    # Where a folder holds both, ONNX Runtime, which is always installed.
    has_onnx = any(path.glob("*.onnx")) or any(path.glob("onnx/*.onnx"))
    return "llama" if any(path.glob("*.gguf")) and not has_onnx else "onnx"


def _gguf(path: Path) -> Path:
    if not path.is_dir():
        return path
    # Of a model in parts the first stands for all.
    found = sorted(file for file in path.glob("*.gguf") if "-of-" not in file.stem or "-00001-of-" in file.stem)
    if len(found) != 1:
        listed = ", ".join(file.name for file in found) or "none"
        raise ModelNotFoundError(f"{path} must hold one .gguf file to be loaded by its folder; found: {listed}")
    return found[0]


class _Deadline:
    """One cancellation out of the caller's and of the time limit, and which of them it was."""

    def __init__(self, timeout_s: float | None, cancellation: Cancellation | None) -> None:
        self.cancellation = Cancellation()
        self._timeout_s = timeout_s
        self._timer = threading.Timer(timeout_s or 0.0, self._expire)
        self._timer.daemon = True
        self._expired = False
        self._outer = cancellation
        self._forget: Callable[[], None] = lambda: None

    def __enter__(self) -> _Deadline:
        if self._outer is not None:
            self._forget = self._outer.on_cancel(self.cancellation.cancel)
        if self._timeout_s is not None:
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        self._forget()
        if isinstance(error, LoadCancelled) and self._expired and not (self._outer and self._outer.cancelled):
            raise LoadTimeoutError(f"the model was not loaded within {self._timeout_s:g} s") from error

    def _expire(self) -> None:
        self._expired = True
        self.cancellation.cancel()
