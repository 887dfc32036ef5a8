"""A network as data: operators with shapes, read from torch and ONNX, counted and followed in one place."""
