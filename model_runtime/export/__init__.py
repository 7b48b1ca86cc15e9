"""Making models for NPUs: `pd-models export-npu`. Needs the extra `export` (onnx); nothing at run time imports it."""
