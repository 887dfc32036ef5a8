"""Evening channels: the function stays, the sizes become even, and a network that int8 ruined is repaired."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgewright.export.int8.equalise import equalise, find_pairs
from edgewright.export.int8.fallback import quantise_within
from edgewright.export.int8.quantise import Int8Types, best_ranges, prepare, quantise, relative_error
from edgewright.export.onnx import export_onnx
from edgewright.export.running import outputs

SHAPE = (1, 2, 9, 7)


def samples(count: int = 12) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32),) for seed in range(count)]


def uneven(tmp_path, *, depthwise: bool, activation: type[nn.Module] = nn.ReLU) -> onnx.ModelProto:
    """Two convolutions whose channels between lie up to 1,000 times apart; what is computed would suit 8 bits."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        second = nn.Conv2d(8, 8, 3, groups=8) if depthwise else nn.Conv2d(8, 8, 3)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3), activation(), second, nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )  # fmt: skip
    scale = torch.logspace(-3, 0, 8)
    with torch.no_grad():
        model[0].weight *= scale.view(-1, 1, 1, 1)
        model[0].bias *= scale
        second.weight /= scale.view((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1))
    path = tmp_path / "uneven.onnx"
    export_onnx(model, SHAPE[1:], path)
    return prepare(onnx.load(path))


@pytest.mark.parametrize("depthwise", [True, False])
def test_the_function_stays_and_int8_is_repaired(tmp_path, depthwise: bool) -> None:
    prepared = uneven(tmp_path, depthwise=depthwise)
    before = prepared.SerializeToString()
    even = equalise(prepared, samples())
    assert even is not None and prepared.SerializeToString() == before
    expected = outputs(prepared, samples())
    assert outputs(even, samples())[0] == pytest.approx(expected[0], rel=1e-4, abs=1e-5)

    def error(model: onnx.ModelProto) -> float:
        _, covered = best_ranges(model, samples(), Int8Types())
        return relative_error(outputs(quantise(model, covered, Int8Types()), samples()), expected)

    assert error(even) < error(prepared) / 20
    assert error(even) < 1e-3


def test_pairs_are_found_only_where_evening_is_exact(tmp_path) -> None:
    assert len(find_pairs(uneven(tmp_path, depthwise=True))) == 2
    for other in (nn.ReLU6, nn.Hardswish, nn.Sigmoid):
        assert len(find_pairs(uneven(tmp_path, depthwise=False, activation=other))) == 1


def test_what_is_read_twice_is_left_alone(tmp_path) -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.one(x).relu()
            return (self.two(y) + y).flatten(1)

    with torch.random.fork_rng():
        export_onnx(Shortcut(), SHAPE[1:], tmp_path / "s.onnx")
    prepared = prepare(onnx.load(tmp_path / "s.onnx"))
    assert find_pairs(prepared) == []
    assert equalise(prepared, samples()) is None


def test_a_dead_channel_does_no_harm(tmp_path) -> None:
    prepared = uneven(tmp_path, depthwise=False)
    weight = prepared.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weight).copy()
    values[4] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    even = equalise(prepared, samples())
    assert even is not None
    assert outputs(even, samples())[0] == pytest.approx(outputs(prepared, samples())[0], rel=1e-4, abs=1e-5)


def test_evening_comes_before_layers_go_back(tmp_path) -> None:
    prepared = uneven(tmp_path, depthwise=True)
    expected = outputs(prepared, samples())
    found = quantise_within(
        prepared, samples(), Int8Types(), lambda m: 100 * relative_error(outputs(m, samples()), expected), max_drop=0.1
    )
    assert found.evened and found.in_float == ()
    assert "channels evened" in found.note()
