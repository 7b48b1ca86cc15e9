"""Runs a model: one Engine contract over ONNX Runtime, llama.cpp and emulated hardware."""
