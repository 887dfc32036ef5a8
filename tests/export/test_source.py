"""ONNX files from anywhere: what is wrong with them is one sentence that says what, where and what to do."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.core.errors import BadInput
from edgewright.export.int8.quantise import outputs
from edgewright.export.ship.source import read_onnx, read_source


def model(nodes=None, shape=(1, 2, 5, 7), kind=TensorProto.FLOAT, opset: int = 18, inputs: int = 1) -> onnx.ModelProto:
    nodes = nodes or [helper.make_node("Conv", ["x", "w"], ["y"], name="first")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x" if i == 0 else f"x{i}", kind, shape) for i in range(inputs)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((3, 2, 3, 3), dtype=np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def written(tmp_path: Path, proto: onnx.ModelProto) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def refused(path: Path, message: str, shape=None) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_onnx(path, shape)
    assert str(path) in str(caught.value) or "model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_file_and_a_free_batch(tmp_path: Path) -> None:
    for first in (1, "N"):
        found, shape = read_onnx(written(tmp_path, model(shape=(first, 2, 5, 7))))
        assert shape == (1, 2, 5, 7)
        assert outputs(found, [np.ones(shape, dtype=np.float32)])[0, 0, 0, 0] == 18
        assert [dim.dim_value for dim in found.graph.output[0].type.tensor_type.shape.dim] == [1, 3, 3, 5]


def test_free_sizes_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, model(shape=("N", 2, "h", "w")))
    refused(path, "--shape 1,2,N,N")
    refused(path, "does not fit", (1, 3, 5, 7))
    assert read_onnx(path, (1, 2, 6, 9))[1] == (1, 2, 6, 9)


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    refused(written(tmp_path, model(shape=(8, 2, 5, 7))), "batch is fixed to 8")


@pytest.mark.parametrize("content", [b"", b"garbage, certainly no protobuf \xff\xff\xff", b"\x08\x0a"])
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, "not an ONNX file")


def test_a_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model().SerializeToString()[:-40])
    refused(path, "not an ONNX file")


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "model.onnx", "no such file")


def test_unknown_opsets(tmp_path: Path) -> None:
    refused(written(tmp_path, model(opset=999)), "opset 999 is not known here")


def test_an_opset_that_only_the_runtime_does_not_know(tmp_path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    try:
        read_onnx(written(tmp_path, model(opset=newest)))
    except BadInput as error:
        assert re.fullmatch(
            rf"\S+: ONNX Runtime cannot open it \(opset {newest} of ai.onnx is too new for version [\d.]+; "
            r"export it with \d+ or an older one\)",
            str(error),
        )
    else:
        pytest.skip(f"this ONNX Runtime takes opset {newest}, the newest that there is")


def test_unsupported_operators_are_named_with_their_node(tmp_path: Path) -> None:
    odd = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Wobble", ["z"], ["y"], name="wobbly")]
    refused(written(tmp_path, model(odd)), "node 'wobbly' is a 'Wobble', an operator that opset 18 does not have")
    odd[1].domain, odd[1].name = "my.company", ""
    refused(written(tmp_path, model(odd)), "node number 1 is a 'Wobble', .* domain 'my.company'")
    newer = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Gelu", ["z"], ["y"], name="late")]
    refused(written(tmp_path, model(newer)), "'late' is a 'Gelu', an operator that opset 18")


def test_operators_inside_branches_are_looked_at(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Wobble", ["x"], ["b"], name="deep")], "b", [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )  # fmt: skip
    condition = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
    branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    refused(written(tmp_path, model([condition, branch])), "node 'deep' is a 'Wobble'")


def test_other_inputs(tmp_path: Path) -> None:
    refused(written(tmp_path, model(kind=TensorProto.INT64)), "is int64; one float32 input")
    refused(written(tmp_path, model(inputs=2)), "has 2 inputs")


def test_a_graph_that_does_not_hold_together(tmp_path: Path) -> None:
    refused(written(tmp_path, model([helper.make_node("Conv", ["x", "nowhere"], ["y"])])), "not a valid ONNX model")


def external(tmp_path: Path, location: str, data: bool = True) -> Path:
    proto = model()
    tensor = proto.graph.initializer[0]
    if data:
        place = (tmp_path / "inner" / location).resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(tensor.raw_data)
    (tmp_path / "inner").mkdir(exist_ok=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return written(tmp_path / "inner", proto)


def test_external_data_inside_the_folder_is_read(tmp_path: Path) -> None:
    found, shape = read_onnx(external(tmp_path, "weights.bin"))
    assert outputs(found, [np.ones(shape, dtype=np.float32)]).max() == 18


@pytest.mark.parametrize("location", ["../weights.bin", "sub/../../weights.bin", "/etc/hostname", ""])
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    refused(external(tmp_path, location, data=location.endswith(".bin")), "outside the model's folder")


def test_external_data_behind_a_link_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path, "weights.bin")
    (path.parent / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (path.parent / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    refused(path, "outside the model's folder")


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    refused(external(tmp_path, "weights.bin", data=False), "'weights.bin', which is not there")


def test_external_data_of_a_constant_node_is_looked_at(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.ones((3, 2, 3, 3), dtype=np.float32), "c")
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="../../secret.bin")
    nodes = [helper.make_node("Constant", [], ["k"], value=value), helper.make_node("Conv", ["x", "k"], ["y"])]
    refused(written(tmp_path, model(nodes)), "outside the model's folder")


def test_a_run_brings_its_network_and_task(made_run: Path) -> None:
    source = read_source(made_run)
    assert source.run is not None and source.module is not None and source.spec is not None
    assert source.spec.name == "digits"
    assert source.shape[0] == 1


def test_an_altered_run_is_refused(made_run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(made_run, copy)
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(BadInput, match="altered"):
        read_source(copy)
    with pytest.raises(BadInput, match="not a run folder"):
        read_source(tmp_path)
