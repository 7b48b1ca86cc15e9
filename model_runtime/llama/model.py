"""A GGUF file in memory: weights, metadata, vocabulary."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
from typing import TYPE_CHECKING, Any

from model_runtime.errors import (
    EngineUnavailableError,
    LoadCancelled,
    ModelFormatError,
)
from model_runtime.llama.header import check_file
from model_runtime.llama.library import Library, collected_problems, load_library

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_runtime.core import Cancellation

_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")
_WHOLE_FILE, _HEAD, _SAMPLES, _SAMPLE = 16 << 20, 1 << 20, 256, 16 << 10


class Model:
    """A loaded model. `free` it exactly once; nothing here may be called afterwards."""

    def __init__(self, library: Library, handle: int, path: Path) -> None:
        self.library = library
        self.handle = handle
        self.path = path
        self.vocabulary: int = library.api.llama_model_get_vocab(handle)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        gpu_layers: int,
        cancellation: Cancellation | None,
        progress: Callable[[float], None] | None,
        vocabulary_only: bool = False,
    ) -> Model:
        """`vocabulary_only`: without weights, for a tokenizer alone. Raises LoadError's kinds, and whatever `progress`
        raises."""
        library = load_library()
        check_file(library, path)
        api = library.api
        if gpu_layers and not api.llama_supports_gpu_offload():
            raise EngineUnavailableError(
                f"gpu_layers={gpu_layers}, but this llama.cpp is built for the CPU only: "
                "build llama-cpp-python for your GPU (see its README), or ask for gpu_layers=0"
            )
        watch = _LoadWatch(cancellation, progress)
        # Not held back, llama.cpp puts a space in front of every text of a SentencePiece vocabulary, also in front of
        # the rest of an answer. Where a prompt wants that space, the tokenizer adds it.
        overrides = (api.llama_model_kv_override * 2)()
        overrides[0].tag = api.LLAMA_KV_OVERRIDE_TYPE_BOOL
        overrides[0].key = b"tokenizer.ggml.add_space_prefix"
        overrides[0].value.val_bool = False
        parameters = api.llama_model_default_params()
        parameters.n_gpu_layers = gpu_layers
        parameters.vocab_only = vocabulary_only
        parameters.kv_overrides = overrides
        # Parsing the vocabulary comes before the first report, so ask once now.
        watch.on_progress(0.0, None)
        if watch.error is not None:
            raise watch.error
        callback = api.llama_progress_callback(watch.on_progress)  # Must stay alive until the load returns.
        parameters.progress_callback = callback
        with collected_problems() as problems:
            handle = api.llama_model_load_from_file(os.fsencode(path), parameters)
        if watch.error is not None:
            if handle:
                api.llama_model_free(handle)
            raise watch.error
        if not handle:
            raise ModelFormatError(f"llama.cpp cannot load {path}: {_reason(problems)}")
        model = cls(library, handle, path)
        if refusal := model._refusal():
            model.free()
            raise ModelFormatError(f"{path} cannot answer as a language model: {refusal}")
        return model

    def free(self) -> None:
        self.library.api.llama_model_free(self.handle)

    def metadata(self, key: str) -> str | None:
        """A value of the file's metadata as text, such as `general.name`; None where it is not there."""
        name = key.encode()
        get = self.library.api.llama_model_meta_val_str
        size = get(self.handle, name, None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        get(self.handle, name, buffer, len(buffer))
        return buffer.raw[:size].decode(errors="replace")

    @property
    def architecture(self) -> str:
        return self.metadata("general.architecture") or ""

    @property
    def trained_context(self) -> int:
        return int(self.library.api.llama_model_n_ctx_train(self.handle))

    @property
    def original_context(self) -> int:
        """The context before it was stretched by scaled rotary embeddings; 0 where the file names none."""
        return int(self.metadata(f"{self.architecture}.rope.scaling.original_context_length") or 0)

    @property
    def keeps_all_keys(self) -> bool:
        """Whether the memory of any position can be taken back: not so with recurrent or sliding-window layers."""
        return not (self.recurrent or self.window)

    @property
    def recurrent(self) -> bool:
        """Whether some layers keep a running state instead of keys."""
        api = self.library.api
        return bool(api.llama_model_is_recurrent(self.handle) or api.llama_model_is_hybrid(self.handle))

    @property
    def window(self) -> int:
        """How many tokens back some layers see; 0 where all see everything."""
        return max(0, int(self.library.api.llama_model_n_swa(self.handle)))

    @property
    def quantization(self) -> str:
        name: bytes | None = self.library.api.llama_ftype_name(self.library.api.llama_model_ftype(self.handle))
        return (name or b"unknown").decode().removeprefix("(guessed) ")

    @property
    def parameters(self) -> int:
        return int(self.library.api.llama_model_n_params(self.handle))

    def fingerprint(self) -> str:
        """Of weights and shape: a digest over each file's size and content; of files above 16 MiB the first MiB
        (metadata) and 256 blocks of 16 KiB spread evenly. Two conversions of the same weights differ."""
        digest = hashlib.sha256(b"pd gguf 1\0")
        for path in _shards(self.path):
            size = path.stat().st_size
            digest.update(size.to_bytes(8, "little"))
            with path.open("rb") as file:
                if size <= _WHOLE_FILE:
                    digest.update(file.read())
                    continue
                digest.update(file.read(_HEAD))
                for sample in range(_SAMPLES):
                    file.seek((size - _SAMPLE) * sample // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE))
        return digest.hexdigest()

    def _refusal(self) -> str:
        api = self.library.api
        if api.llama_model_has_encoder(self.handle) or not api.llama_model_has_decoder(self.handle):
            return f"its architecture {self.architecture!r} has an encoder; a decoder-only model is needed"
        if api.llama_model_is_diffusion(self.handle):
            return f"its architecture {self.architecture!r} is a diffusion model, not an autoregressive one"
        if api.llama_vocab_type(self.vocabulary) == api.LLAMA_VOCAB_TYPE_NONE:
            return "it holds no vocabulary (tokenizer.ggml.model is `none`): convert it again with its tokenizer"
        return ""


class _LoadWatch:
    """Reports progress and ends a load. What the caller's function raises must not unwind through C."""

    def __init__(self, cancellation: Cancellation | None, progress: Callable[[float], None] | None) -> None:
        self._cancellation = cancellation
        self._progress = progress
        self.error: BaseException | None = None

    def on_progress(self, fraction: float, _user_data: Any) -> bool:
        try:
            if self._cancellation is not None and self._cancellation.cancelled:
                raise LoadCancelled("the load was cancelled by its caller; nothing is kept in memory")
            if self._progress is not None:
                self._progress(fraction)
        except BaseException as error:
            self.error = error
            return False
        return True


def _shards(path: Path) -> list[Path]:
    match = _SHARD.fullmatch(path.name)
    if not match:
        return [path]
    return sorted(path.parent.glob(f"{match[1]}-?????-of-{match[2]}.gguf"))


def _reason(problems: list[str]) -> str:
    """What went wrong, of llama.cpp's lines; the last ones only say that the load failed."""
    told = [line.partition("error loading model: ")[2] for line in problems if "error loading model: " in line]
    return told[0] if told else "; ".join(problems) or "it gives no reason"
