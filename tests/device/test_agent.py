"""What runs where the network runs: it stands alone, feeds every input, and times as it is told."""

import ast
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewright.device import agent
from edgewright.device.agent import feed_for, pinned
from edgewright.device.here.runtime import open_session


def test_the_file_stands_alone() -> None:
    tree = ast.parse(Path(agent.__file__).read_text(), feature_version=(3, 7))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names) | {"numpy", "onnxruntime"}


def test_every_input_is_fed() -> None:
    """A picture, a depth map with a free side, and token numbers."""
    value = helper.make_tensor_value_info
    given = [
        value("image", TensorProto.FLOAT, ("batch", 3, 5)),
        value("depth", TensorProto.DOUBLE, (1, "side")),
        value("tokens", TensorProto.INT64, (1, 4)),
    ]
    nodes = [helper.make_node("Shape", [name], [f"{name}_shape"]) for name in ("image", "depth", "tokens")]
    made = [value(f"{name}_shape", TensorProto.INT64, (None,)) for name in ("image", "depth", "tokens")]
    model = helper.make_model(helper.make_graph(nodes, "g", given, made), opset_imports=[helper.make_opsetid("", 18)],
                              ir_version=10)  # fmt: skip
    onnx.checker.check_model(model)
    feed = feed_for(open_session(model.SerializeToString()))
    assert {name: (array.shape, array.dtype) for name, array in feed.items()} == {
        "image": ((1, 3, 5), np.dtype(np.float32)),
        "depth": ((1, 1), np.dtype(np.float64)),
        "tokens": ((1, 4), np.dtype(np.int64)),
    }
    assert feed["image"].std() > 0 and not feed["tokens"].any()


def test_pinned_inside_pinned_stays_where_it_is() -> None:
    with pinned(1), pinned(1):
        pass
