"""ONNX files from anywhere: what is wrong with them is one sentence that says what, where and what to do."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.core.errors import BadInput
from edgewright.core.tensors import TensorSpec
from edgewright.export.graph import inputs_of, outputs_of
from edgewright.export.running import outputs
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
        found = read_onnx(written(tmp_path, model(shape=(first, 2, 5, 7))))
        assert inputs_of(found) == (TensorSpec(name="x", shape=(1, 2, 5, 7)),)
        assert outputs(found, [(np.ones((1, 2, 5, 7), dtype=np.float32),)])[0][0, 0, 0, 0] == 18
        assert [dim.dim_value for dim in found.graph.output[0].type.tensor_type.shape.dim] == [1, 3, 3, 5]


def test_free_sizes_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, model(shape=("N", 2, "h", "w")))
    refused(path, "--shape 1,2,N,N")
    refused(path, "does not fit", (1, 3, 5, 7))
    assert inputs_of(read_onnx(path, (1, 2, 6, 9)))[0].shape == (1, 2, 6, 9)


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


def ends(*inputs, outputs=(("y", TensorProto.FLOAT, (1, 4)),), nodes=()) -> onnx.ModelProto:
    """A graph with these inputs and outputs; a table of 9 rows of 4 numbers."""
    graph = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info(*one) if isinstance(one, tuple) else one for one in inputs],
        [helper.make_tensor_value_info(*one) if isinstance(one, tuple) else one for one in outputs],
        [numpy_helper.from_array(np.arange(36, dtype=np.float32).reshape(9, 4), "table")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


GATHER = helper.make_node("Gather", ["table", "ids"], ["rows"], name="look")
SCALED = [GATHER, helper.make_node("Mul", ["rows", "by"], ["y"], name="scale")]


def test_several_inputs_of_any_type_and_rank(tmp_path: Path) -> None:
    given = ("ids", TensorProto.INT64, ("b",)), ("by", TensorProto.FLOAT, ())
    found = read_onnx(written(tmp_path, ends(*given, nodes=SCALED)))
    assert inputs_of(found) == (
        TensorSpec(name="ids", shape=(1,), dtype="int64"), TensorSpec(name="by", shape=()),
    )  # fmt: skip
    (y,) = outputs(found, [(np.array([3]), np.full((), 2, np.float32))])
    assert np.asarray(y).tolist() == [[24, 26, 28, 30]]
    path = written(tmp_path, ends(("ids", TensorProto.INT64, ("b", "n")), given[1], nodes=SCALED))
    refused(path, r"the input 'ids' has the shape 1,\?: say which, with --shape 'ids=1,N'")
    refused(path, "has 2 inputs: name them", (1, 5))
    assert inputs_of(read_onnx(path, {"ids": (1, 5)}))[0].shape == (1, 5)


def test_what_is_no_tensor_of_numbers_is_said_to_be_that(tmp_path: Path) -> None:
    ids = ("ids", TensorProto.INT64, (1,))
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    made = [GATHER, helper.make_node("SequenceConstruct", ["rows", "rows"], ["y"])]
    valid = ends(ids, outputs=[sequence], nodes=made)
    onnx.checker.check_model(valid)
    refused(written(tmp_path, valid), "the output 'y' is a sequence, and only tensors are taken")
    optional = helper.make_value_info("o", helper.make_optional_type_proto(
        helper.make_tensor_type_proto(TensorProto.FLOAT, (1, 4))))  # fmt: skip
    node = helper.make_node("OptionalGetElement", ["o"], ["y"])
    refused(written(tmp_path, ends(optional, nodes=[node])), "the input 'o' is optional, and only tensors")
    words = ends(("ids", TensorProto.STRING, (1,)), outputs=[("y", TensorProto.STRING, (1,))],
                 nodes=[helper.make_node("Identity", ["ids"], ["y"])])  # fmt: skip
    refused(written(tmp_path, words), "the input 'ids' is no tensor of numbers")
    nothing = ends(nodes=[helper.make_node("Identity", ["table"], ["y"])], outputs=[("y", TensorProto.FLOAT, (9, 4))])
    refused(written(tmp_path, nothing), "has no input")


def test_a_file_of_another_domain_alone(tmp_path: Path) -> None:
    """skl2onnx writes networks with operators of ai.onnx.ml and no opset of the standard's."""
    scaler = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[1.0] * 4, scale=[2.0] * 4)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [scaler], "g", [info("x", TensorProto.FLOAT, (1, 4))], [info("y", TensorProto.FLOAT, (1, 4))]
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8)
    found = read_onnx(written(tmp_path, proto))
    assert np.asarray(outputs(found, [(np.ones((1, 4), np.float32) * 3,)])[0]).tolist() == [[4.0] * 4]


def test_a_shape_that_the_inference_cannot_tell_stays_as_the_file_has_it(tmp_path: Path) -> None:
    """The size of the output hangs on values: with the batch fixed nobody knows it any more; it must not be lost."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first"), helper.make_node("NonZero", ["n"], ["z"]),
        helper.make_node("Gather", ["n", "z"], ["g"]), helper.make_node("Reshape", ["g", "flat"], ["s"]),
        helper.make_node("Reshape", ["c", "s"], ["y"], name="last"),
    ]  # fmt: skip
    proto = model(nodes, shape=("b", 2, 5, 7))
    proto.graph.initializer.extend([
        numpy_helper.from_array(np.array([1, 45]), "n"), numpy_helper.from_array(np.array([-1]), "flat"),
    ])  # fmt: skip
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ("b", 45)))
    onnx.checker.check_model(proto)
    found = read_onnx(written(tmp_path, proto))
    onnx.checker.check_model(found)
    assert len(outputs_of(found)[0].shape) == 2
    assert np.shape(outputs(found, [(np.ones((1, 2, 5, 7), np.float32),)])[0]) == (1, 45)


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
    found = read_onnx(external(tmp_path, "weights.bin"))
    assert np.max(outputs(found, [(np.ones((1, 2, 5, 7), dtype=np.float32),)])[0]) == 18


@pytest.mark.parametrize("location", ["../weights.bin", "sub/../../weights.bin", "/etc/hostname", ""])
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    refused(external(tmp_path, location, data=location.endswith(".bin")), "outside the model's folder")


def test_external_data_behind_a_link_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path, "weights.bin")
    (path.parent / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (path.parent / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    refused(path, "outside the model's folder")


def test_external_data_in_the_cache_of_a_hub(tmp_path: Path) -> None:
    """There both the model and its weights are links into one folder, where they are called by their digests."""
    path = external(tmp_path, "model.onnx_data")
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    path.rename(blobs / "11")
    (path.parent / "model.onnx_data").rename(blobs / "22")
    (snapshot / "model.onnx").symlink_to("../../blobs/11")
    (snapshot / "model.onnx_data").symlink_to("../../blobs/22")
    found = read_onnx(snapshot / "model.onnx")
    assert np.max(outputs(found, [(np.ones((1, 2, 5, 7), dtype=np.float32),)])[0]) == 18
    (tmp_path / "secret").write_bytes((blobs / "22").read_bytes())
    (snapshot / "model.onnx_data").unlink()
    (snapshot / "model.onnx_data").symlink_to("../../secret")
    refused(snapshot / "model.onnx", "outside the model's folder")


def test_external_data_that_is_cut(tmp_path: Path) -> None:
    path = external(tmp_path, "weights.bin")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data.add(key="length", value="216")
    path.write_bytes(proto.SerializeToString())
    (path.parent / "weights.bin").write_bytes(b"1234")
    refused(path, "weight 'w' is cut off in 'weights.bin'")


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
