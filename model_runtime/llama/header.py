"""What is checked in a GGUF file before llama.cpp loads it, because llama.cpp would end the process over it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from model_runtime.errors import ModelFormatError, ModelNotFoundError
from model_runtime.llama.library import GgufParameters, Library, collected_problems

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"GGUF"
# `enum gguf_type`
_STRING, _ARRAY = 8, 9


def check_file(library: Library, path: Path) -> None:
    """Raises ModelNotFoundError, or ModelFormatError for what is no GGUF or has a vocabulary with a token twice."""
    if not path.exists():
        raise ModelNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is not a file: name the .gguf file itself (of a split model, the first)")
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise ModelFormatError(f"{path} is not a GGUF file: it begins with {magic!r}, not {_MAGIC!r}")
    ggml = library.ggml
    with collected_problems() as problems:
        header = ggml.gguf_init_from_file(os.fsencode(path), GgufParameters(no_alloc=True))
    if not header:
        raise ModelFormatError(f"{path} is damaged: {'; '.join(problems) or 'its header cannot be read'}")
    try:
        _check_tokens(ggml, header, path)
    finally:
        ggml.gguf_free(header)


def _check_tokens(ggml: Any, header: int, path: Path) -> None:
    key = ggml.gguf_find_key(header, b"tokenizer.ggml.tokens")
    # What is missing or of another type llama.cpp refuses properly.
    if key < 0 or ggml.gguf_get_kv_type(header, key) != _ARRAY or ggml.gguf_get_arr_type(header, key) != _STRING:
        return
    seen: set[bytes] = set()
    for index in range(ggml.gguf_get_arr_n(header, key)):
        token: bytes = ggml.gguf_get_arr_str(header, key, index)
        if token in seen:
            raise ModelFormatError(
                f"{path} has the token {token!r} twice in its vocabulary: it is damaged, or was converted badly"
            )
        if token:  # llama.cpp gives empty ones names of their own.
            seen.add(token)
