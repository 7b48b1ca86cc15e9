"""llama.cpp as an engine: any GGUF that it loads. Needs `pip install pd-device[llama]`, imported only on load."""

from model_runtime.llama.engine import LlamaEngine

__all__ = ["LlamaEngine"]
