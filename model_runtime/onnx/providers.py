"""Execution providers: which there are, how a session gets one, and what is known about each.

Built-in ones come with the onnxruntime package. Plug-ins come with a package of their own, are registered with ONNX
Runtime once in a process, and offer the devices that they find.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from model_runtime.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CPU = "CPUExecutionProvider"
QNN = "QNNExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a provider. `package`: of its plug-in; `extra`: the one of this project that brings it."""

    title: str
    package: str | None = None
    extra: str | None = None
    #: Compiles a graph ahead, so that the result is worth keeping (EPContext).
    compiles: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


KNOWN: Mapping[str, Known] = {
    QNN: Known(
        "Qualcomm Hexagon NPU",
        "onnxruntime_qnn",
        "qnn",
        compiles=True,
        # By default the CPU would convert what goes in and out, which is a fallback.
        options={"offload_graph_io_quantization": "0", "htp_performance_mode": "burst"},
    ),
    OPENVINO: Known("Intel CPU, GPU and NPU", "onnxruntime_ep_openvino", "openvino"),
    "CoreMLExecutionProvider": Known("Apple Neural Engine, GPU and CPU", options={"ModelFormat": "MLProgram"}),
    "NnapiExecutionProvider": Known("Android NNAPI"),
    "XnnpackExecutionProvider": Known("XNNPACK, a library of CPU kernels"),
    "CUDAExecutionProvider": Known("NVIDIA GPU"),
    "DmlExecutionProvider": Known("DirectML, Windows GPUs and NPUs"),
    CPU: Known("CPU"),
}


@dataclass(frozen=True, slots=True)
class Usable:
    """A provider that a session can have here, and what runs it."""

    name: str
    hardware: str


_registered: set[str] = set()
_lock = threading.Lock()


def register_plugins() -> dict[str, str]:
    """Register every installed plug-in, each once in a process; returns why one could not be, by provider."""
    failed = {}
    with _lock:
        for name, known in KNOWN.items():
            if known.package is None or name in _registered or importlib.util.find_spec(known.package) is None:
                continue
            if name in ort.get_available_providers():  # built into this onnxruntime
                continue
            try:
                ort.register_execution_provider_library(name, importlib.import_module(known.package).get_library_path())
            # What a vendor's library raises while it loads has no type of its own.
            except Exception as error:
                failed[name] = str(error)
            else:
                _registered.add(name)
    return failed


def usable() -> list[Usable]:
    """The providers that a session can have on this machine. Registers plug-ins."""
    register_plugins()
    found = [name for name in ort.get_available_providers() if name not in _registered]
    found += [name for name in KNOWN if name in _registered and _devices(name)]
    return [Usable(name, hardware(name)) for name in found]


def check(providers: Sequence[str], *, allow_cpu_fallback: bool) -> None:
    """Raises EngineUnavailableError where one of `providers` cannot be had, or would fall back without leave."""
    failed = register_plugins()
    available = [each.name for each in usable()]
    if not providers:
        raise EngineUnavailableError(f"name at least one execution provider of: {', '.join(available)}")
    for name in providers:
        if name not in available:
            raise EngineUnavailableError(
                f"{name} is not available in this onnxruntime{_why_not(name, failed)}; "
                f"available here: {', '.join(available)}"
            )
    if providers[0] != CPU and CPU in providers and not allow_cpu_fallback:
        raise EngineUnavailableError(
            f"{CPU} after {providers[0]} is a fallback: pass allow_cpu_fallback=True if that is meant, or leave it out"
        )


def add(
    options: ort.SessionOptions, providers: Sequence[str], provider_options: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Give a session these providers, which `check` has accepted; returns what else InferenceSession takes."""
    every = {name: options_of(name) | dict(provider_options.get(name, {})) for name in providers}
    if not _registered.intersection(providers):
        return {"providers": list(providers), "provider_options": [every[name] for name in providers]}
    for name in providers:
        if name in _registered:
            options.add_provider_for_devices(_devices(name), every[name])
        elif name != CPU:  # which is always the last one
            options.add_provider(name, every[name])
    return {}


def options_of(name: str) -> dict[str, str]:
    """What a provider is given unless the caller says otherwise."""
    known = KNOWN.get(name)
    options = dict(known.options) if known is not None else {}
    if name == QNN and name in _registered:
        options["backend_path"] = importlib.import_module("onnxruntime_qnn").get_qnn_htp_path()
    return options


def hardware(name: str) -> str:
    """The provider and what it runs on; an emulator is called one."""
    if name == QNN and platform.machine().lower() in ("x86_64", "amd64"):
        return f"{name} (Hexagon HTP, emulated on this CPU)"
    return name


def _devices(name: str) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == name]


def _why_not(name: str, failed: Mapping[str, str]) -> str:
    known = KNOWN.get(name)
    if name in failed:
        return f" (its plug-in does not load: {failed[name]})"
    if name in _registered:
        return " (its plug-in finds no device that it drives)"
    if known is not None and known.extra is not None:
        return f" (it comes with pip install 'pd-device[{known.extra}]')"
    return ""
