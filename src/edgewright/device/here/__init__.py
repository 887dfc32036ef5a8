"""This machine: its processor through ONNX Runtime."""
