"""The layer that departs is named, by the name that its author knows."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgewright.core.errors import GateFailed
from edgewright.export.choose.candidates import Judge, build_all
from edgewright.export.choose.diverge import Pair, diverge, of_module, pairs, tapped
from edgewright.export.choose.samples import Samples
from edgewright.export.int8.equalise import equalise
from edgewright.export.int8.quantise import Int8Types, best_ranges, prepare, quantise
from edgewright.export.onnx import export_onnx
from edgewright.export.parity import verify
from edgewright.export.runtimes.base import Network
from edgewright.export.runtimes.onnxruntime_adapter import OnnxRuntime

SHAPE = (1, 3, 12, 20)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act(self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.features = nn.Conv2d(3, 6, 3), nn.Sequential(Block(6), Block(6), Block(6))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.pool(self.features(self.stem(x))), 1))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Net()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.running_mean, -0.2, 0.2)
                nn.init.uniform_(norm.running_var, 0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def file(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    export_onnx(net, SHAPE[1:], path)
    return path


@pytest.fixture(scope="module")
def float_net(file: Path) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(file))


def samples(count: int = 12) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32),) for seed in range(count)]


def altered(model: onnx.ModelProto, weight: str, by: float) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    (tensor,) = (tensor for tensor in made.graph.initializer if tensor.name == weight)
    value = numpy_helper.to_array(tensor).copy()
    value[2] *= by
    tensor.CopyFrom(numpy_helper.from_array(value, weight))
    return made


def tensors(model: onnx.ModelProto, names: list[str]):
    return OnnxRuntime().tensors(tapped(model, names), "fp32")


def parted(source: onnx.ModelProto, candidate: onnx.ModelProto, kind: str):
    found = pairs(source, candidate)
    one, other = tensors(source, [pair.source for pair in found]), tensors(candidate, [pair.found for pair in found])
    return diverge(found, one, other, samples(), kind)


def test_nodes_are_called_as_their_modules(float_net: onnx.ModelProto) -> None:
    names = [node.name for node in float_net.graph.node]
    assert len(set(names)) == len(names)
    convolutions = [node.name for node in float_net.graph.node if node.op_type == "Conv"]
    assert convolutions == ["stem", "features.0.conv", "features.1.conv", "features.2.conv"]
    assert [node.name for node in float_net.graph.node if node.op_type == "Gemm"] == ["head"]
    assert any(name.startswith("features.1.add") for name in names)


def test_known_figures() -> None:
    y, z = np.array([[3.0, 4.0]]), np.array([[3.0, 0.0]])
    given = [Pair("a", "a", "Conv", "first"), Pair("b", "b", "Conv", "second")]
    told = diverge(given, lambda _: [y, y], lambda _: [y, z], [(np.zeros(1),)] * 3, "int8")
    assert told is not None and told.first is told.furthest and told.compared == 2
    assert told.furthest.cosine == pytest.approx(9 / 15) and told.furthest.error == pytest.approx(4 / 5)
    assert told.text() == "diverges first at Conv 'second' (cosine 0.60, off by up to 4)"


def test_the_same_network_does_not_part(float_net: onnx.ModelProto) -> None:
    told = parted(float_net, float_net, "fp32")
    assert told is not None and told.first is None and told.furthest.error == 0
    assert told.compared == len(float_net.graph.node)


@pytest.mark.parametrize("layer", ["stem", "features.1.conv", "head"])
def test_the_altered_layer_is_named(float_net: onnx.ModelProto, layer: str) -> None:
    told = parted(float_net, altered(float_net, f"{layer}.weight", -3.0), "fp32")
    assert told is not None and told.first is not None
    assert told.first.name == layer
    assert told.first.operator in ("Conv", "Gemm")


def test_good_int8_does_not_part_and_an_altered_layer_of_it_does(float_net: onnx.ModelProto) -> None:
    prepared = prepare(float_net)
    _, covered = best_ranges(prepared, samples(), Int8Types())
    told = parted(prepared, quantise(prepared, covered, Int8Types()), "int8")
    assert told is not None and told.first is None and 0 < told.furthest.error < 0.2
    assert told.compared > 6  # dequantised tensors, by their names in the float network
    wrong = quantise(altered(prepared, "features.1.conv.weight", -4.0), covered, Int8Types())
    told = parted(prepared, wrong, "int8")
    # The activation's clipping belongs to the convolution's kernel then, and the convolution is what is named.
    assert told is not None and told.first is not None and told.first.name == "features.1.conv"
    assert told.first.operator == "Conv"


def test_evened_channels_are_held_against_the_evened_network(network: onnx.ModelProto) -> None:
    prepared = prepare(network)
    even = equalise(prepared, samples())
    assert even is not None
    _, covered = best_ranges(even, samples(), Int8Types())
    told = parted(even, quantise(even, covered, Int8Types()), "int8")
    assert told is not None and told.first is None


def test_outputs_that_are_no_numbers_part(float_net: onnx.ModelProto) -> None:
    told = parted(float_net, altered(float_net, "features.2.conv.weight", float("nan")), "fp32")
    assert told is not None and told.first is not None and told.first.name == "features.2.conv"
    assert told.first.error == float("inf")


def test_modules_and_nodes_hold_the_same(net: nn.Module, float_net: onnx.ModelProto) -> None:
    found, layers = of_module(net, float_net)
    names = [pair.layer for pair in found]
    assert names[:3] == ["stem", "features.0.conv", "features.0.act"] and names[-1] == "head"
    told = diverge(found, layers, tensors(float_net, [pair.found for pair in found]), samples(), "fp32")
    assert told is not None and told.first is None and told.furthest.error < 1e-5


def test_a_layer_of_two_nodes_is_compared_at_its_end(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Linear(180, 7), nn.GELU(), nn.Linear(7, 3)).eval()
    export_onnx(model, SHAPE[1:], tmp_path / "two.onnx")
    proto = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "two.onnx"))
    assert "Add" in {node.op_type for node in proto.graph.node}  # linear layers of three axes are MatMul and Add
    found, layers = of_module(model, proto)
    assert {"2", "4"} <= {pair.layer for pair in found}
    told = diverge(found, layers, tensors(proto, [pair.found for pair in found]), samples(), "fp32")
    assert told is not None and told.first is None


def test_parity_names_the_layer(net: nn.Module, file: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.onnx"
    onnx.save(altered(onnx.load(file), "features.2.conv.weight", 5.0), wrong)
    with pytest.raises(GateFailed, match=r"must not be used; it diverges first at Conv2d 'features.2.conv' \(cosine"):
        verify(net, wrong, torch.from_numpy(np.concatenate([x for (x,) in samples()])))


def test_a_candidate_that_fails_says_where(net: nn.Module, file: Path, float_net: onnx.ModelProto, tmp_path) -> None:
    class Wrong(OnnxRuntime):
        """Takes one layer for another one, wherever it computes."""

        def build(self, network, kind, stem):
            return super().build(self._bad(network), kind, stem)

        def tensors(self, model, kind):
            return super().tensors(altered(model, "features.0.conv.weight", -6.0), kind)

        def _bad(self, network):
            return Network(altered(network.model, "features.0.conv.weight", -6.0))

    data = Samples(samples(), samples(24), None)
    for module in (None, net):
        given = Network(float_net, module, calibration=samples())
        (row,) = build_all([(Wrong(), "fp32")], given, Judge(given, data, 1.0, None), tmp_path)
        assert "computes something else" in (row.refused or "")
        kind = "Conv2d" if module else "Conv"
        assert f"; diverges first at {kind} 'features.0.conv' (cosine" in (row.refused or "")
    (row,) = build_all([(OnnxRuntime(), "int8")], given, Judge(given, data, 100.0, None), tmp_path)
    assert row.refused is None and row.divergence is not None and row.divergence.first is None
