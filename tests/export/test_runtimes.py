"""Laws of all runtimes: a file that is built opens, has the source's shape, computes what the source computes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn

from edgewright.core.errors import BadInput, MissingExtra
from edgewright.device.here.instructions import has_bf16
from edgewright.device.here.runtime import open_session
from edgewright.export.int8.quantise import best_ranges, outputs, prepare, quantise, relative_error, types_here
from edgewright.export.runtimes.base import KINDS, Kind, Network, Runtime, Unfit, fixed_shape
from edgewright.export.runtimes.executorch_adapter import ExecuTorch
from edgewright.export.runtimes.onnxruntime_adapter import OnnxRuntime
from edgewright.export.runtimes.resolve import make_runtimes, runtime_for, runtimes

SHAPE = (1, 3, 12, 20)
# Largest relative squared error of the outputs that a type may bring on a network that suits it.
MOST = {"fp32": 1e-10, "bf16": 1e-3, "int8": 2e-3}
EVERY = pytest.mark.parametrize("name", list(runtimes()))
# ExecuTorch's and LiteRT's converters load for many seconds.
SOME = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("executorch", "litert"))) for name in runtimes()]
)


def samples(count: int = 20) -> list[np.ndarray]:
    return [np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32) for seed in range(count)]


@pytest.fixture(scope="module")
def ready(network: onnx.ModelProto, module: nn.Module) -> Network:
    prepared = prepare(network)
    _, covered = best_ranges(prepared, samples(), types_here())
    return Network(network, SHAPE, module, quantise(prepared, covered, types_here()), samples())


def installed(name: str) -> Runtime:
    runtime = runtimes()[name]
    if not runtime.installed():
        pytest.skip(f"{name} is not installed")
    return runtime


@pytest.mark.parametrize("kind", KINDS)
@SOME
def test_what_is_built_computes_the_source(name: str, kind: Kind, ready: Network, tmp_path: Path) -> None:
    runtime = installed(name)
    reason = runtime.refusal(kind, ready)
    if reason:
        assert kind == "bf16", reason
        return
    built = runtime.build(ready, kind, tmp_path / "deep" / "model")
    assert built.path.suffix in runtime.suffixes
    assert {path.name for path in built.files} == {path.name for path in (tmp_path / "deep").iterdir()}
    assert built.size_bytes == sum(path.stat().st_size for path in built.files)
    program = runtime.open(built.path)
    assert program.shape == SHAPE
    found = [program.call(array) for array in samples(6)]
    assert found[0].shape == (1, 5)
    expected = outputs(ready.model, samples(6))
    assert relative_error(np.concatenate(found), expected) < MOST[kind]
    # An output belongs to the caller: the next call must not write over it.
    kept = found[0].copy()
    program.call(samples(6)[5])
    assert (found[0] == kept).all()
    again = program.call(samples(6)[0])
    assert again == pytest.approx(kept, abs=1e-6)


@SOME
def test_a_broken_file_is_one_sentence(name: str, tmp_path: Path) -> None:
    runtime = installed(name)
    path = tmp_path / f"broken{runtime.suffixes[0]}"
    with pytest.raises(BadInput, match="no such file"):
        runtime.open(path)
    path.write_bytes(b"not a network at all, but long enough to be read as a header " * 4)
    with pytest.raises(BadInput, match="cannot open it") as caught:
        runtime.open(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@EVERY
def test_a_missing_runtime_is_a_row_or_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtimes()[name]
    if runtime.extra is None:
        assert runtime.missing() is None
        return
    monkeypatch.setattr(type(runtime), "installed", lambda self: False)
    assert runtime.missing() == f"not installed: pip install 'edgewright[{name}]'"
    with pytest.raises(MissingExtra, match=rf"{name} is not installed: pip install 'edgewright\[{name}\]'"):
        make_runtimes([name])
    with pytest.raises(MissingExtra):
        runtime_for(f"model{runtime.suffixes[0]}")


@EVERY
def test_names_and_endings_lead_to_the_runtime(name: str) -> None:
    runtime = runtimes()[name]
    assert runtime.name == name and runtime.summary and runtime.source.startswith("https://")
    if runtime.installed():
        assert runtime_for(f"a/b{runtime.suffixes[0]}")[0].name == name
        assert runtime_for(f"a/b{runtime.suffixes[0].upper()}")[0].name == name
        assert runtime_for(f"{name}:a/b.any")[1] == Path("a/b.any")


def test_unknown_names_and_endings() -> None:
    with pytest.raises(BadInput, match=r"unknown runtime 'tensorrt'; choose from onnxruntime, openvino"):
        make_runtimes(["tensorrt"])
    with pytest.raises(BadInput, match=r"known are .onnx, .xml, .pte, .tflite"):
        runtime_for("model.pb")


def test_networks_without_pytorch_are_refused_before_any_work(network: onnx.ModelProto) -> None:
    alone = Network(network, SHAPE)
    for name in ("executorch", "litert"):
        assert "which an ONNX file does not hold" in (runtimes()[name].refusal("fp32", alone) or "")
    assert OnnxRuntime().refusal("int8", alone) is None


def test_onnx_runtime_still_has_no_bf16_kernels() -> None:
    # Where this fails, a newer ONNX Runtime computes bf16: the refusal is out of date.
    from onnx import TensorProto, helper

    for operator, shapes in (("Conv", ((1, 8, 8, 8), (8, 8, 3, 3))), ("MatMul", ((8, 8), (8, 8)))):
        given, weight = shapes
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            [helper.make_node(operator, ["x", "w"], ["y"])], "g", [info("x", TensorProto.BFLOAT16, given)],
            [info("y", TensorProto.BFLOAT16, None)],
            [helper.make_tensor("w", TensorProto.BFLOAT16, weight, np.ones(weight).ravel().tolist())],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        with pytest.raises(BadInput, match="NOT_IMPLEMENTED"):
            open_session(model.SerializeToString())


def test_bf16_follows_the_processor(network: onnx.ModelProto) -> None:
    refused = runtimes()["openvino"].refusal("bf16", Network(network, SHAPE))
    assert (refused is None) or not has_bf16()


@pytest.mark.slow
def test_executorch_refuses_its_portable_kernels(module: nn.Module, network, tmp_path, monkeypatch) -> None:
    installed("executorch")
    from executorch.backends.xnnpack.partition import xnnpack_partitioner  # pyright: ignore[reportMissingImports]

    class Nobody(xnnpack_partitioner.XnnpackPartitioner):
        def partition(self, program):
            from executorch.exir.backend.partitioner import PartitionResult  # pyright: ignore[reportMissingImports]

            return PartitionResult(tagged_exported_program=program, partition_tags={})

        def ops_to_not_decompose(self, program):
            return [], None

    monkeypatch.setattr(xnnpack_partitioner, "XnnpackPartitioner", Nobody)
    with pytest.raises(Unfit, match=r"does not take .*convolution"):
        ExecuTorch().build(Network(network, SHAPE, module), "fp32", tmp_path / "m")


@pytest.mark.parametrize(
    ("dims", "shape", "found"),
    [
        ([1, 3, 8, 9], None, (1, 3, 8, 9)),
        (["N", 3, 8, 9], None, (1, 3, 8, 9)),
        ([None, 3, 8, 9], (1, 3, 8, 9), (1, 3, 8, 9)),
        ([-1, 3, None, "w"], (1, 3, 5, 6), (1, 3, 5, 6)),
    ],
)
def test_free_dimensions(dims, shape, found) -> None:
    assert fixed_shape(dims, shape, "f") == found


@pytest.mark.parametrize(
    ("dims", "shape", "message"),
    [
        (["N", 3, "h", "w"], None, "--shape 1,3,N,N"),
        ([1, 3, 8, 9], (1, 3, 8, 8), "does not fit"),
        ([1, 3, 8, 9], (3, 8, 9), "does not fit"),
        ([None, 3, None, None], (1, 3, 0, 4), "does not fit"),
    ],
)
def test_free_dimensions_that_are_left_open(dims, shape, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fixed_shape(dims, shape, "f")
