"""Which engines and execution providers are here, which are not, and what it takes to have them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass

#: Calls a service elsewhere; it runs no model here.
_REMOTE = "AzureExecutionProvider"
_PACKAGES = {"onnxruntime": "onnxruntime", "llama.cpp": "llama-cpp-python"}


@dataclass(frozen=True, slots=True)
class Part:
    """An engine or an execution provider. `fix`: what to do to have it; empty where it can be used, or never could."""

    name: str
    usable: bool
    detail: str
    fix: str = ""


def engines() -> list[Part]:
    found = []
    for name, package in _PACKAGES.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found.append(Part(name, False, "not installed", _INSTALL[name]))
            continue
        failure = _import_failure(name)
        found.append(Part(name, not failure, failure or version, f"reinstall it: {_INSTALL[name]}" if failure else ""))
    return found


def providers() -> list[Part]:
    """Of ONNX Runtime: all that can be used, then those known of that cannot, with the reason. Needs onnxruntime."""
    from model_runtime.onnx.providers import KNOWN, register_plugins, usable

    failed = register_plugins()
    here = [each for each in usable() if each.name != _REMOTE]
    parts = [Part(each.name, True, each.hardware) for each in here]
    for name, known in KNOWN.items():
        if name in {each.name for each in here}:
            continue
        if name in failed:
            parts.append(Part(name, False, f"its plug-in does not load: {failed[name]}", f"reinstall {known.package}"))
        elif known.extra is None:
            parts.append(Part(name, False, f"{known.title}: not part of this onnxruntime"))
        elif importlib.util.find_spec(known.package or "") is None:
            fix = f"for {known.title}: pip install 'pd-device[{known.extra}]'"
            parts.append(Part(name, False, f"{known.title}: not installed", fix))
        else:
            parts.append(Part(name, False, f"{known.title}: installed, and finds no device that it drives"))
    return parts


def _import_failure(name: str) -> str:
    try:
        if name == "onnxruntime":
            import onnxruntime  # noqa: F401
        else:
            import llama_cpp  # noqa: F401
    # A native library that does not load raises whatever it likes.
    except Exception as error:
        return f"installed, and cannot be imported: {error}"
    return ""


_INSTALL = {
    "onnxruntime": "pip install pd-device",
    "llama.cpp": "pip install 'pd-device[llama]' (needs a C++ compiler)",
}
