"""What a file that ships says of where it comes from: kept in its own metadata."""

import hashlib
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from edgewright.core.data import to_json
from edgewright.core.environment import versions

KEY = "edgewright.export"  # in the metadata of an ONNX file that was chosen or compressed: JSON
WEIGHTS_KEY = "edgewright.weights_sha256"
RECORD = "choice.json"


def weights_sha256(model: onnx.ModelProto) -> str:
    """Digest of all constants: names, types, shapes and values, in the order of their names."""
    tensors = [(tensor.name, tensor) for tensor in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors += [(node.output[0], entry.t) for entry in node.attribute if entry.HasField("t")]
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda row: row[0]):
        values = numpy_helper.to_array(tensor)
        digest.update(f"{name}|{tensor.data_type}|{list(tensor.dims)}|".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def signed(path: Path, texts: dict[str, str], facts: dict[str, Any]) -> bytes:
    """The file's bytes; an ONNX file gets its source's metadata, `texts`, and what was found out of it, `facts`."""
    if path.suffix != ".onnx":
        return path.read_bytes()
    model = onnx.load(path)
    weights = weights_sha256(model)
    texts = texts | {
        "edgewright": versions().get("edgewright", "unknown"),
        WEIGHTS_KEY: weights,
        KEY: to_json(facts | {"weights_sha256": weights}),
    }
    onnx.helper.set_model_props(model, dict(sorted(texts.items())))
    return model.SerializeToString(deterministic=True)
