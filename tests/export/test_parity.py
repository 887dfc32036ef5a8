import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgewright.core.errors import BadInput, GateFailed
from edgewright.export.onnx import export_onnx
from edgewright.export.parity import onnx_outputs, torch_outputs, verify


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        )
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    export_onnx(model, (2, 9, 7), path)
    return model.train(), path


def samples(count: int = 20) -> torch.Tensor:
    return torch.randn(count, 2, 9, 7, generator=torch.Generator().manual_seed(5))


def test_a_faithful_file_passes_and_the_model_is_left_alone(pair):
    model, path = pair
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parity = verify(model, path, samples())
    (output,) = parity.outputs
    (expected,), (found,) = torch_outputs(model, samples()), onnx_outputs(path, samples())
    assert output.name == "logits"
    assert output.max_abs_difference == np.abs(found - expected).max() < 1e-5
    assert output.max_relative_difference == pytest.approx(np.abs(found - expected).max() / np.abs(expected).max())
    assert (parity.same, parity.samples, parity.batch) == (100, 20, 8)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("change", [0.05, float("nan")])
def test_an_altered_file_fails_loudly(pair, tmp_path, change):
    model, path = pair
    proto = onnx.load(path)
    weight = next(tensor for tensor in proto.graph.initializer if list(tensor.dims) == [4, 8])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[1, 3] += change
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(proto, tmp_path / "altered.onnx")
    with pytest.raises(GateFailed, match=r"on 20 samples: .*output 'logits'.*; it must not be used"):
        verify(model, tmp_path / "altered.onnx", samples())


def test_swapped_classes_fail_by_the_figures(pair, tmp_path):
    model, path = pair
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.shape in ((4, 8), (4,)):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[::-1]), tensor.name))
    onnx.save(proto, tmp_path / "swapped.onnx")
    with pytest.raises(GateFailed, match="output 'logits' differs"):
        verify(model, tmp_path / "swapped.onnx", samples())


def test_no_samples_prove_nothing(pair):
    with pytest.raises(BadInput, match="no samples"):
        verify(*pair, samples(0))
