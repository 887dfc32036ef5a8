"""The layer that suffers most is found, and as few as possible go back to float."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgewright.export.int8.fallback import quantise_within, sensitivity
from edgewright.export.int8.quantise import Int8Types, best_ranges, layers, outputs, prepare, relative_error
from edgewright.export.onnx import export_onnx

SHAPE = (1, 2, 9, 7)


@pytest.fixture(scope="module")
def broken_in_the_middle(tmp_path_factory) -> onnx.ModelProto:
    """Four convolutions; the third's channels are of very unequal size inside one output channel: 8 bits ruin it."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(),
            nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
    third, scale = model[4], torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 3000])
    with torch.no_grad():
        model[2].weight[7] /= 3000  # what the network computes stays the same, only its ranges become unequal
        model[2].bias[7] /= 3000
        third.weight *= scale.view(1, 8, 1, 1)
    path = tmp_path_factory.mktemp("broken") / "model.onnx"
    export_onnx(model, SHAPE[1:], path)
    return onnx.load(path)


def samples(count: int = 12) -> list[np.ndarray]:
    return [np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32) for seed in range(count)]


def test_the_worst_layer_is_found(broken_in_the_middle) -> None:
    prepared = prepare(broken_in_the_middle)
    _, covered = best_ranges(prepared, samples(), Int8Types())
    damage = sensitivity(prepared, covered, Int8Types(), samples(6))
    names = layers(prepared)
    assert list(damage) == names
    assert max(names, key=lambda name: damage[name]) == names[2]
    assert damage[names[2]] > 10 * damage[names[3]]


def test_only_as_many_layers_as_needed_go_back(broken_in_the_middle) -> None:
    tried: list[float] = []

    def drop(model: onnx.ModelProto) -> float:
        tried.append(100 * relative_error(outputs(model, samples()), outputs(broken_in_the_middle, samples())))
        return tried[-1]

    found = quantise_within(broken_in_the_middle, samples(), Int8Types(), drop, max_drop=0.1)
    assert found.drop <= 0.1 < tried[0]
    # The unequal channels lie between the second layer and the third; the others have done nothing.
    assert set(found.in_float) == set(layers(prepare(broken_in_the_middle))[1:3])
    assert "2 of 4 layers in float" in found.note()
    assert "U8S8" in found.note()


def test_nothing_goes_back_where_nothing_is_lost(broken_in_the_middle) -> None:
    found = quantise_within(broken_in_the_middle, samples(), Int8Types(), lambda _: 0.0, max_drop=0.0)
    assert found.in_float == ()


@pytest.mark.parametrize("needed", [1, 2, 3, 4])
def test_the_fewest_are_found_by_halving(broken_in_the_middle, needed: int) -> None:
    def integer_layers(model: onnx.ModelProto) -> int:
        return sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4 for t in model.graph.initializer)

    found = quantise_within(
        broken_in_the_middle, samples(4), Int8Types(), lambda model: float(integer_layers(model) > 4 - needed), 0.5
    )
    assert len(found.in_float) == needed


def test_a_drop_that_nothing_keeps_is_handed_back(broken_in_the_middle) -> None:
    found = quantise_within(broken_in_the_middle, samples(4), Int8Types(), lambda _: 7.0, max_drop=1.0)
    assert found.drop == 7.0
    assert len(found.in_float) == 4
