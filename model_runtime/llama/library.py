"""The llama.cpp shared library, loaded once: its functions, its tensors, and its log sent through `logging`.

llama-cpp-python is imported here and nowhere else, when a model is loaded.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model_runtime.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: llama.cpp's own lines. Silent until the application configures logging.
LOG = logging.getLogger("model_runtime.llama")
LOG.addHandler(logging.NullHandler())

# `enum ggml_log_level`: debug, info, warn, error; 5 continues the line before. Its info is no news to an application.
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUES = 5

#: What attention is made of, in every version of ggml that has a unified KV cache.
_OPERATIONS = {"SET_ROWS", "SOFT_MAX", "FLASH_ATTN_EXT"}

# Of the many facts that llama.cpp tells about a CPU, those that decide how fast it is.
_VECTORS = ("AVX2", "AVX512", "AVX512_VNNI", "AMX_INT8", "NEON", "DOTPROD", "MATMUL_INT8", "SVE", "RVV", "VSX")


class Tensor(ctypes.Structure):
    """`struct ggml_tensor`: what an eval callback gets the address of."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * 10),
    ("view_src", ctypes.POINTER(Tensor)),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]


class GgufParameters(ctypes.Structure):
    """`struct gguf_init_params`."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


# Name, what it returns, what it takes.
_GGML: tuple[tuple[Any, ...], ...] = (
    ("ggml_backend_tensor_get", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t),
    ("ggml_get_name", ctypes.c_void_p, ctypes.c_void_p),
    ("ggml_op_name", ctypes.c_char_p, ctypes.c_int),
    ("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, GgufParameters),
    ("gguf_free", None, ctypes.c_void_p),
    ("gguf_find_key", ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p),
    ("gguf_get_kv_type", ctypes.c_int, ctypes.c_void_p, ctypes.c_int64),
    ("gguf_get_arr_type", ctypes.c_int, ctypes.c_void_p, ctypes.c_int64),
    ("gguf_get_arr_n", ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int64),
    ("gguf_get_arr_str", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t),
)


@dataclass(frozen=True)
class Library:
    """llama.cpp's C functions (`api`), and those of ggml below it, which the bindings leave out."""

    api: Any
    ggml: Any
    version: str
    #: Numbers of ggml's operations by name, as many as are needed here: they differ between versions.
    operations: dict[str, int]

    def read(self, tensor: Tensor, offset: int, size: int) -> NDArray[np.uint8]:
        """A copy of `size` bytes of a tensor's data, wherever it lives."""
        data = np.empty(size, dtype=np.uint8)
        self.ggml.ggml_backend_tensor_get(ctypes.addressof(tensor), data.ctypes.data, offset, size)
        return data

    @property
    def hardware(self) -> str:
        """What the library was built for and found, such as `llama.cpp CPU (AVX2, AVX512)`."""
        parts = []
        for section in self.api.llama_print_system_info().decode().replace("| CPU :", "\nCPU :").splitlines():
            backend, _, facts = section.partition(" : ")
            found = [name for name in _VECTORS if f"{name} = 1" in facts]
            parts.append(f"{backend.strip()} ({', '.join(found)})" if found else backend.strip())
        return "llama.cpp " + ", ".join(parts)

    def knows_layout(self, tensor: Tensor) -> bool:
        """Whether `Tensor` describes this library's tensors: its name is where the library says it is."""
        address = ctypes.addressof(tensor)
        return bool(self.ggml.ggml_get_name(address) == address + Tensor.name.offset)


_lock = threading.Lock()


def load_library() -> Library:
    """The library, initialised on the first call. Raises EngineUnavailableError."""
    with _lock:
        return _initialise()


@functools.cache
def _initialise() -> Library:
    try:
        from llama_cpp import llama_cpp as api
    except (ImportError, OSError, RuntimeError) as error:  # The bindings raise RuntimeError for a broken library.
        raise EngineUnavailableError(
            f"llama.cpp cannot be used here ({error}): run `pip install pd-device[llama]`"
        ) from error
    api.llama_log_set(_log_callback, None)
    api.llama_backend_init()
    ggml = api._lib
    if not hasattr(ggml, "ggml_backend_tensor_get"):  # Windows looks no further than the library itself.
        from llama_cpp._ctypes_extensions import load_shared_library

        ggml = load_shared_library("ggml-base", api._base_path)
    for name, result, *arguments in _GGML:
        function = getattr(ggml, name)
        function.restype, function.argtypes = result, arguments
    return Library(api, ggml, api.llama_version().decode(), _operations(ggml.ggml_op_name))


def _operations(op_name: Any) -> dict[str, int]:
    # ggml exports no count of its operations, and reading past the last name is not allowed: stop at what is needed.
    operations: dict[str, int] = {}
    for number in itertools.count():
        operations[op_name(number).decode()] = number
        if operations.keys() >= _OPERATIONS:
            return operations
    raise AssertionError("unreachable: the loop has no end but its return")


#: How llama.cpp words that a pass was cancelled, which is no error.
_CANCELLED = re.compile(r"(failed with error 1|compute status: 1|failed to decode, ret = 2)$")


class _Log(threading.local):
    """The line being put together in this thread, and where its warnings and errors are collected, if anywhere."""

    def __init__(self) -> None:
        self.level = logging.DEBUG
        self.line = ""
        self.problems: list[str] | None = None


_log = _Log()


def _on_log(level: int, text: bytes, _user_data: int | None) -> None:
    if level != _CONTINUES:
        _log.level = _LEVELS.get(level, logging.DEBUG)
    _log.line += text.decode(errors="replace")
    if not _log.line.endswith("\n"):
        return
    line, _log.line = _log.line.strip(), ""
    if not line.strip("."):  # Dots show how far a load is.
        return
    level = logging.DEBUG if _CANCELLED.search(line) else _log.level
    LOG.log(level, "%s", line)
    if _log.problems is not None and level >= logging.WARNING:
        _log.problems.append(line)


# llama.cpp keeps the address of this object for as long as the process lives: it must never be collected.
_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_on_log)


@contextmanager
def collected_problems() -> Iterator[list[str]]:
    """Warnings and errors that llama.cpp logs in this thread meanwhile."""
    outer, _log.problems = _log.problems, []
    try:
        yield _log.problems
    finally:
        _log.problems = outer
