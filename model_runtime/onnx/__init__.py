"""Runs decoders in ONNX through ONNX Runtime."""

from model_runtime.onnx.engine import OnnxEngine

__all__ = ["OnnxEngine"]
