"""One ONNX Runtime session: made with the named execution providers only, run with prompt cancellation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from model_runtime.errors import EngineFailedError, EngineUnavailableError, LoadCancelled, ModelFormatError
from model_runtime.passes import raise_if_cancelled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from model_runtime.core import Cancellation
    from model_runtime.onnx.files import ModelFiles

CPU = "CPUExecutionProvider"
# ONNX Runtime prints what it also raises; only what is fatal to the process is worth printing twice.
_FATAL_ONLY = 4


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
        options = ort.RunOptions()
        options.log_severity_level = _FATAL_ONLY
        # No capture of GPU graphs, as shapes change with every pass; unset, each run would look for it in vain.
        options.add_run_config_entry("gpu_graph_id", "-1")
        forget = (
            cancellation.on_cancel(lambda: setattr(options, "terminate", True))
            if cancellation is not None
            else _nothing
        )
        try:
            self._session.run_with_iobinding(binding, options)
        # ONNX Runtime's exceptions have no base of their own.
        except Exception as error:
            raise_if_cancelled(cancellation)
            raise EngineFailedError(f"ONNX Runtime: {error}") from error
        finally:
            forget()
        values: list[ort.OrtValue] = binding.get_outputs()
        return values


def create_session(
    files: ModelFiles,
    *,
    providers: Sequence[str],
    threads: int | None,
    allow_cpu_fallback: bool,
    cancellation: Cancellation | None,
    graph: bytes | None = None,
) -> Session:
    """A session over the model's graph file, or over `graph` in its place; nothing is written to disk.

    Raises EngineUnavailableError where a provider is not there or cannot take the model, ModelFormatError where the
    model is damaged, LoadCancelled, also from inside the load.
    """
    _check_providers(providers, allow_cpu_fallback=allow_cpu_fallback)
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # Between passes the threads sleep: an engine that waits for its next token must not cost the other one its CPU.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if providers[0] != CPU and not allow_cpu_fallback:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    # Held until the session is made.
    maps = _add_external(options, files) if graph is not None else []
    source = graph if graph is not None else str(files.graph_path)
    stop = (
        cancellation.on_cancel(lambda: options.set_load_cancellation_flag(True))
        if cancellation is not None
        else _nothing
    )
    try:
        # Without fallback: by default a provider that fails is replaced by the CPU, with a print.
        session = ort.InferenceSession(source, options, providers=list(providers), enable_fallback=0)
    except Exception as error:
        if cancellation is not None and cancellation.cancelled:
            raise LoadCancelled(f"the load of {files.graph_path} was cancelled by its caller") from error
        if "disable_cpu_ep_fallback" in str(error) or "fallback to CPU EP" in str(error):
            raise EngineUnavailableError(
                f"{', '.join(providers)} cannot run all of {files.graph_path}, and the rest would fall back to the "
                f"CPU: use a graph made for it, or allow_cpu_fallback=True. ONNX Runtime: {error}"
            ) from error
        raise ModelFormatError(f"{files.graph_path} cannot be loaded. ONNX Runtime: {error}") from error
    finally:
        stop()
        del maps
    # It would keep the whole file in memory for a fallback that is switched off.
    session._model_bytes = None
    running = session.get_providers()
    if missing := [name for name in providers if name not in running]:
        raise EngineUnavailableError(
            f"{', '.join(missing)} did not start for {files.graph_path}; what started: {', '.join(running)}"
        )
    return Session(session, _device_of(session))


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


def _check_providers(providers: Sequence[str], *, allow_cpu_fallback: bool) -> None:
    available = ort.get_available_providers()
    if not providers:
        raise EngineUnavailableError(f"name at least one execution provider of: {', '.join(available)}")
    if missing := [name for name in providers if name not in available]:
        raise EngineUnavailableError(
            f"{', '.join(missing)} is not available in this onnxruntime; available here: {', '.join(available)}"
        )
    if providers[0] != CPU and CPU in providers and not allow_cpu_fallback:
        raise EngineUnavailableError(
            f"{CPU} after {providers[0]} is a fallback: pass allow_cpu_fallback=True if that is meant, or leave it out"
        )


def _device_of(session: ort.InferenceSession) -> str:
    """Where KV lives: with NVIDIA's providers on the device, else in host memory."""
    return "cuda" if session.get_providers()[0] in ("CUDAExecutionProvider", "TensorrtExecutionProvider") else "cpu"


def _nothing() -> None:
    """There is nothing to unregister."""
