"""Laws of all runtimes: a file that is built opens, has the source's shape, computes what the source computes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgewright.core.errors import BadInput, GateFailed, MissingExtra
from edgewright.core.tensors import Signature, TensorSpec
from edgewright.device.here.instructions import has_bf16
from edgewright.device.here.runtime import open_session
from edgewright.export.int8.quantise import best_ranges, prepare, quantise, relative_error, types_here
from edgewright.export.onnx import export_onnx
from edgewright.export.parity import verify
from edgewright.export.running import Sample, gathered, outputs
from edgewright.export.runtimes import litert_adapter
from edgewright.export.runtimes.base import KINDS, Kind, Network, Runtime, Unfit, fixed, made_up
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


def samples(count: int = 20) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32),) for seed in range(count)]


@pytest.fixture(scope="module")
def ready(network: onnx.ModelProto, module: nn.Module) -> Network:
    prepared = prepare(network)
    _, covered = best_ranges(prepared, samples(), types_here())
    return Network(network, module, quantise(prepared, covered, types_here()), samples())


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
    assert [(spec.shape, spec.dtype) for spec in program.inputs] == [(SHAPE, "float32")]
    found = [program.call(sample) for sample in samples(6)]
    assert len(found[0]) == 1 and found[0][0].shape == (1, 5)
    assert relative_error(gathered(found), outputs(ready.model, samples(6))) < MOST[kind]
    # An output belongs to the caller: the next call must not write over it.
    kept = found[0][0].copy()
    program.call(samples(6)[5])
    assert (found[0][0] == kept).all()
    assert program.call(samples(6)[0])[0] == pytest.approx(kept, abs=1e-6)


class Two(nn.Module):
    """An image, and the number of a word; class scores, and a box."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.words = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Embedding(11, 4)
        self.scores, self.box = nn.Linear(12, 5), nn.Linear(12, 4)

    def forward(self, image: torch.Tensor, word: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = torch.relu(self.norm(self.conv(image))).mean((2, 3))
        both = torch.cat([seen, self.words(word)], 1)
        return {"scores": self.scores(both), "box": self.box(both)}


TWO = Signature(
    inputs=(TensorSpec(name="image", shape=(3, 12, 20)), TensorSpec(name="word", shape=(), dtype="int64")),
    outputs=(TensorSpec(name="scores", shape=(5,)), TensorSpec(name="box", shape=(4,))),
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Two().eval()
    path = tmp_path_factory.mktemp("two") / "two.onnx"
    export_onnx(module, TWO, path)
    return Network(onnx.load(path), module, calibration=of_two(20))


def of_two(count: int) -> list[Sample]:
    return [(image, np.array([seed % 11])) for seed, (image,) in enumerate(samples(count))]


@SOME
def test_several_inputs_and_outputs(name: str, two: Network, tmp_path: Path) -> None:
    assert two.module is not None
    runtime, given = installed(name), of_two(6)
    program = runtime.open(runtime.build(two, "fp32", tmp_path / "model").path)
    assert [(spec.shape, spec.dtype.rstrip("0123456789")) for spec in program.inputs] == [
        (SHAPE, "float"), ((1,), "int")
    ]  # fmt: skip
    found = gathered(map(program.call, given))
    with torch.no_grad():
        wanted = [two.module(torch.from_numpy(image), torch.from_numpy(word)) for image, word in given]
    for values, key in zip(found, ("scores", "box"), strict=True):
        np.testing.assert_allclose(values, torch.cat([one[key] for one in wanted]).numpy(), rtol=1e-4, atol=1e-5)


def test_the_exported_file_of_several_is_held_against_all_outputs(two: Network, tmp_path: Path) -> None:
    assert two.module is not None
    onnx.save(two.model, tmp_path / "two.onnx")
    x = {"image": torch.from_numpy(np.concatenate([x for x, _ in of_two(20)])), "word": torch.arange(20) % 11}
    parity = verify(two.module, tmp_path / "two.onnx", x)
    assert [output.name for output in parity.outputs] == ["scores", "box"] and parity.batch == 8
    assert max(output.max_relative_difference for output in parity.outputs) < 1e-4
    with torch.no_grad():
        two.module.get_submodule("box").get_parameter("bias").add_(0.5)
    with pytest.raises(GateFailed, match=r"output 'box' differs by up to 0\.5, .* diverges first at Linear 'box'"):
        verify(two.module, tmp_path / "two.onnx", x)
    with torch.no_grad():
        two.module.get_submodule("box").get_parameter("bias").sub_(0.5)


def test_litert_takes_whole_numbers_in_the_type_that_its_converter_gave_them() -> None:
    """int64 becomes int32 in the file; what does not fit is not cut in silence."""
    plain, scaled = {"dtype": np.int32, "quantization": (0.0, 0)}, {"dtype": np.int8, "quantization": (0.5, 3)}
    found = litert_adapter._to_integers(np.array([7, -9]), plain)
    assert found.dtype == np.int32 and found.tolist() == [7, -9]
    with pytest.raises(ValueError, match="int32, which cannot hold"):
        litert_adapter._to_integers(np.array([2**40]), plain)
    assert litert_adapter._to_integers(np.float32([1.0, 99.0]), scaled).tolist() == [5, 127]


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
    alone = Network(network)
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
    refused = runtimes()["openvino"].refusal("bf16", Network(network))
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
        ExecuTorch().build(Network(network, module), "fp32", tmp_path / "m")


def spec(dims, name: str = "x", dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, shape=tuple(dims), dtype=dtype)


@pytest.mark.parametrize(
    ("dims", "shape", "found"),
    [
        ([1, 3, 8, 9], None, (1, 3, 8, 9)),
        ([None, 3, 8, 9], None, (1, 3, 8, 9)),
        ([None, 3, 8, 9], (1, 3, 8, 9), (1, 3, 8, 9)),
        ([None, 3, None, None], (1, 3, 5, 6), (1, 3, 5, 6)),
        ([], None, ()),
    ],
)
def test_free_dimensions(dims, shape, found) -> None:
    assert fixed([spec(dims)], shape, "f") == (spec(found),)


@pytest.mark.parametrize(
    ("dims", "shape", "message"),
    [
        ([None, 3, None, None], None, "--shape 1,3,N,N"),
        ([1, 3, 8, 9], (1, 3, 8, 8), "does not fit"),
        ([1, 3, 8, 9], (3, 8, 9), "does not fit"),
        ([None, 3, None, None], (1, 3, 0, 4), "does not fit"),
        ([1, 3, 8, 9], {"y": (1, 3, 8, 9)}, "has no input 'y'; it has x"),
    ],
)
def test_free_dimensions_that_are_left_open(dims, shape, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fixed([spec(dims)], shape, "f")


def test_several_inputs_are_asked_for_by_name() -> None:
    both = [spec([None, None], "ids", "int64"), spec([None, 4], "table"), spec([], "rate", "int64")]
    found = fixed(both, {"ids": (1, 7)}, "f")
    assert [one.shape for one in found] == [(1, 7), (1, 4), ()]
    with pytest.raises(BadInput, match=r"the input 'ids' has the shape 1,\?: say which, with --shape 'ids=1,N'"):
        fixed(both, None, "f")
    with pytest.raises(BadInput, match="has 3 inputs: name them"):
        fixed(both, (1, 7), "f")
    made = made_up(found, seed=3)
    assert [array.shape for array in made] == [(1, 7), (1, 4), ()]
    assert [array.dtype.name for array in made] == ["int64", "float32", "int64"]
    assert not made[0].any() and made[1].all()
