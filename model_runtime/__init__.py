"""Runs a model: one Engine contract over ONNX Runtime, llama.cpp and emulated hardware.

    engine = load_engine("path/to/model")          # or hf://owner/name, or a .gguf file
    with engine:
        sequence = engine.open()
        prompt = engine.tokenizer.render_chat([{"role": "user", "content": "Hello!"}])
        [result] = engine.forward([Chunk(sequence, prompt)])
        token = Sampler(SamplingParams(), prompt).sample(result.logits[-1], [])

Importing this package imports no engine; `load_engine` imports the one it needs. Fakes for tests are in
`model_runtime.testing`.
"""

from model_runtime.core import (
    AttentionTap,
    Cancellation,
    Capabilities,
    Chunk,
    Engine,
    EngineInfo,
    Logits,
    Message,
    Result,
    Tokenizer,
)
from model_runtime.emulated import EmulatedEngine
from model_runtime.errors import (
    BadInputError,
    BadTokenError,
    Cancelled,
    ContextOverflowError,
    DiskFullError,
    DownloadError,
    EngineFailedError,
    EngineUnavailableError,
    KVMismatchError,
    LoadCancelled,
    LoadError,
    LoadTimeoutError,
    ModelAccessError,
    ModelFormatError,
    ModelNotFoundError,
    ModelRuntimeError,
    TemplateError,
    UnknownSequenceError,
    UnsupportedError,
)
from model_runtime.hub import pull
from model_runtime.loading import LoadProgress, load_engine
from model_runtime.profiles import HardwareProfile, LinkProfile, link_names, load_link, load_profile, profile_names
from model_runtime.sampling import Sampler, SamplingParams
from model_runtime.text import StopStrings, TextAssembler

__all__ = [
    "AttentionTap",
    "BadInputError",
    "BadTokenError",
    "Cancellation",
    "Cancelled",
    "Capabilities",
    "Chunk",
    "ContextOverflowError",
    "DiskFullError",
    "DownloadError",
    "EmulatedEngine",
    "Engine",
    "EngineFailedError",
    "EngineInfo",
    "EngineUnavailableError",
    "HardwareProfile",
    "KVMismatchError",
    "LinkProfile",
    "LoadCancelled",
    "LoadError",
    "LoadProgress",
    "LoadTimeoutError",
    "Logits",
    "Message",
    "ModelAccessError",
    "ModelFormatError",
    "ModelNotFoundError",
    "ModelRuntimeError",
    "Result",
    "Sampler",
    "SamplingParams",
    "StopStrings",
    "TemplateError",
    "TextAssembler",
    "Tokenizer",
    "UnknownSequenceError",
    "UnsupportedError",
    "link_names",
    "load_engine",
    "load_link",
    "load_profile",
    "profile_names",
    "pull",
]
