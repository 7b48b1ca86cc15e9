"""One ONNX Runtime session: made with the named execution providers only, run with prompt cancellation."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from model_runtime.errors import EngineFailedError, EngineUnavailableError, LoadCancelled, ModelFormatError
from model_runtime.onnx.compiled import CompiledGraph, compiled_graph
from model_runtime.onnx.providers import CPU, add, check, options_of
from model_runtime.passes import raise_if_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from model_runtime.core import Cancellation
    from model_runtime.onnx.files import ModelFiles

logger = logging.getLogger(__name__)

# ONNX Runtime prints what it also raises; only what is fatal to the process is worth printing twice.
_FATAL_ONLY = 4
_SHOWN_NODES = 8


class Session:
    """Not thread-safe. Tensors it returns stay on the device that the first provider computes on."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session = session
        self._device = device

    @property
    def inputs(self) -> Sequence[Any]:
        inputs: Sequence[Any] = self._session.get_inputs()
        return inputs

    @property
    def outputs(self) -> Sequence[Any]:
        outputs: Sequence[Any] = self._session.get_outputs()
        return outputs

    @property
    def providers(self) -> Sequence[str]:
        names: Sequence[str] = self._session.get_providers()
        return names

    @property
    def assignment(self) -> dict[str, tuple[str, ...]]:
        """The nodes that each provider runs, as `type name`. What is compiled beforehand is one node."""
        found: dict[str, list[str]] = {}
        for part in self._session.get_provider_graph_assignment_info():
            nodes = found.setdefault(part.ep_name, [])
            nodes += (f"{node.op_type} {node.name}".rstrip() for node in part.get_nodes())
        return {name: tuple(nodes) for name, nodes in found.items()}

    def bind(self, arrays: Mapping[str, NDArray[Any]]) -> Binding:
        """Inputs and outputs that stay bound to host memory; see `Binding`."""
        return Binding(self._session, arrays)

    def to_device(self, array: NDArray[Any]) -> ort.OrtValue:
        """On the CPU the array's own memory is used, which must not change while the value is in use."""
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device)

    def run(
        self,
        inputs: Mapping[str, ort.OrtValue],
        outputs: Sequence[str],
        on_host: Sequence[str],
        cancellation: Cancellation | None,
    ) -> list[ort.OrtValue]:
        """The values of `outputs` (kept where they were computed) and then of `on_host`, in that order.

        Raises Cancelled, also from inside the pass; EngineFailedError for anything else that goes wrong.
        """
        raise_if_cancelled(cancellation)
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, self._device)
        for name in on_host:
            binding.bind_output(name, "cpu")
        _run(self._session, binding, cancellation)
        values: list[ort.OrtValue] = binding.get_outputs()
        return values


class Binding:
    """A session's inputs and outputs, bound once to arrays in host memory that passes read and write in place."""

    def __init__(self, session: ort.InferenceSession, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._outputs = {value.name for value in session.get_outputs()}
        self._bound: dict[str, tuple[NDArray[Any], ort.OrtValue]] = {}
        for name, array in arrays.items():
            self.set(name, array)

    def set(self, name: str, array: NDArray[Any]) -> None:
        """Bind an input or output to other memory; nothing happens where it is bound to this array already."""
        if name in self._bound and self._bound[name][0] is array:
            return
        value = ort.OrtValue.ortvalue_from_numpy(array)
        bind = self._binding.bind_ortvalue_output if name in self._outputs else self._binding.bind_ortvalue_input
        bind(name, value)
        self._bound[name] = (array, value)

    def run(self, cancellation: Cancellation | None) -> None:
        """One pass, from the bound arrays into the bound arrays. Raises Cancelled, EngineFailedError."""
        raise_if_cancelled(cancellation)
        _run(self._session, self._binding, cancellation)


def _run(session: ort.InferenceSession, binding: Any, cancellation: Cancellation | None) -> None:
    options = ort.RunOptions()
    options.log_severity_level = _FATAL_ONLY
    # No capture of GPU graphs, as shapes change with every pass; unset, each run would look for it in vain.
    options.add_run_config_entry("gpu_graph_id", "-1")
    forget = (
        cancellation.on_cancel(lambda: setattr(options, "terminate", True)) if cancellation is not None else _nothing
    )
    try:
        session.run_with_iobinding(binding, options)
    # ONNX Runtime's exceptions have no base of their own.
    except Exception as error:
        raise_if_cancelled(cancellation)
        raise EngineFailedError(f"ONNX Runtime: {error}") from error
    finally:
        forget()


def create_session(
    files: ModelFiles,
    *,
    providers: Sequence[str],
    threads: int | None,
    allow_cpu_fallback: bool,
    cancellation: Cancellation | None,
    graph: bytes | None = None,
    provider_options: Mapping[str, Mapping[str, str]] | None = None,
    compiled: Path | None = None,
) -> Session:
    """A session over the model's graph file, or over `graph` in its place. `compiled`: a folder where what the provider
    compiles is kept (EPContext); without it nothing is written to disk.

    Raises EngineUnavailableError where a provider is not there or cannot take the model (it names the nodes that would
    fall to the CPU), ModelFormatError where the model is damaged, LoadCancelled, also from inside the load.
    """
    check(providers, allow_cpu_fallback=allow_cpu_fallback)
    strict = providers[0] != CPU and not allow_cpu_fallback
    extra = provider_options or {}

    def create(source: bytes | str, kept: CompiledGraph | None = None, *, refuse_cpu: bool = strict) -> Session:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        # Between passes the threads sleep: an engine that waits for its next token must not cost the other one its CPU.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        if refuse_cpu:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # Held until the session is made.
        maps = _add_external(options, files) if isinstance(source, bytes) else []
        stop = (
            cancellation.on_cancel(lambda: options.set_load_cancellation_flag(True))
            if cancellation is not None
            else _nothing
        )
        try:
            with kept.written_by(options) if kept is not None else contextlib.nullcontext():
                # Without fallback: by default a provider that fails is replaced by the CPU, with a print.
                session = ort.InferenceSession(source, options, enable_fallback=0, **add(options, providers, extra))
        finally:
            stop()
            del maps
        # It would keep the whole file in memory for a fallback that is switched off.
        session._model_bytes = None
        _give_back()
        return Session(session, _device_of(session))

    source = graph if graph is not None else str(files.graph_path)
    every = {name: options_of(name) | dict(extra.get(name, {})) for name in providers}
    kept = compiled_graph(files, providers, every, compiled) if compiled is not None and graph is None else None
    try:
        session = (_reuse(create, kept) if kept is not None else None) or create(source, kept)
    # ONNX Runtime's exceptions have no base of their own.
    except Exception as error:
        if cancellation is not None and cancellation.cancelled:
            raise LoadCancelled(f"the load of {files.graph_path} was cancelled by its caller") from error
        if "disable_cpu_ep_fallback" in str(error) or "fallback to CPU EP" in str(error):
            raise EngineUnavailableError(
                f"{', '.join(providers)} cannot run all of {files.graph_path}, and the rest would fall back to the "
                f"CPU: {_left_over(lambda: create(source, refuse_cpu=False))}. Use a graph made for it "
                "(pd-models export-npu), or allow_cpu_fallback=True"
            ) from error
        raise ModelFormatError(f"{files.graph_path} cannot be loaded. ONNX Runtime: {error}") from error
    if missing := [name for name in providers if name not in session.providers]:
        raise EngineUnavailableError(
            f"{', '.join(missing)} did not start for {files.graph_path}; what started: {', '.join(session.providers)}"
        )
    return session


def _give_back() -> None:
    """What a load frees is as much again as the weights, and glibc would keep it for later."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _reuse(create: Callable[[str], Session], kept: CompiledGraph) -> Session | None:
    """The session over what an earlier one compiled; None where there is none, or it is of no use any more."""
    if not kept.path.is_file():
        return None
    try:
        return create(str(kept.path))
    except Exception:
        logger.warning("%s cannot be used any more and is compiled again", kept.path, exc_info=True)
        kept.forget()
        return None


def _left_over(create: Callable[[], Session]) -> str:
    """Which nodes the CPU would get, found out by letting it have them."""
    try:
        nodes = create().assignment.get(CPU, ())
    except Exception as error:
        return f"which nodes, cannot be found out ({error})"
    shown = ", ".join(nodes[:_SHOWN_NODES])
    return f"{len(nodes)} nodes, {shown}{', ...' if len(nodes) > _SHOWN_NODES else ''}"


def _add_external(options: ort.SessionOptions, files: ModelFiles) -> list[NDArray[np.uint8]]:
    """Tell a session that is made from bytes where the weights are that lie in other files. It reads what is returned
    without holding it."""
    folder = files.graph_path.parent.resolve()
    if all(path.resolve().is_relative_to(folder) for path in files.external):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        return []
    # ONNX Runtime follows no link out of that folder, and a model hub's cache consists of such links.
    maps: list[NDArray[np.uint8]] = [np.memmap(path, np.uint8, "r") for path in files.external]
    sizes = [each.size for each in maps]
    options.add_external_initializers_from_files_in_memory(list(files.graph.external), maps, sizes)
    return maps


def _device_of(session: ort.InferenceSession) -> str:
    """Where KV lives: with NVIDIA's providers on the device, else in host memory."""
    return "cuda" if session.get_providers()[0] in ("CUDAExecutionProvider", "TensorrtExecutionProvider") else "cpu"


def _nothing() -> None:
    """There is nothing to unregister."""
