"""The pyramid of maps: what its graph counts is what its module is, on oblong, odd and unequal levels."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.ir.graph import count_macs, count_params
from edgewright.model.heads.pyramid import Pyramid, PyramidHead

LEVELS = [
    [(12, 20, 30)],
    [(8, 24, 16), (16, 12, 8)],
    [(8, 17, 23), (12, 9, 12), (24, 5, 6), (40, 3, 3)],  # odd sides: 17 -> 9 -> 5 -> 3
    [(4, 40, 24), (8, 20, 12), (16, 10, 6), (24, 5, 3), (32, 3, 2)],
]


def filled(features: list[tuple[int, ...]], outputs: int, width: int) -> Pyramid:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = PyramidHead(outputs).build([shape[0] for shape in features], width).eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.3, 0.3)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_graph_is_the_module(levels: list[tuple[int, ...]], outputs: int) -> None:
    head = PyramidHead(outputs)
    features = [levels[index] for index in head.reads(levels)]
    assert len(features) == min(len(levels), 4) and features[-1] == levels[-1]
    graph, module = head.graph(features, 16), filled(features, outputs, 16)
    found = module(*(torch.zeros(2, *shape) for shape in features))
    assert tuple(found.shape) == (2, *graph.output_shape) == (2, outputs, *features[0][1:])
    macs = 0

    def count(layer: nn.Module, _, y: torch.Tensor) -> None:
        nonlocal macs
        assert isinstance(layer, nn.Conv2d)
        macs += layer.weight[0].numel() * y[0].numel()

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    module(*(torch.zeros(1, *shape) for shape in features))
    assert count_macs(graph) == macs
    norms = sum(2 * layer.num_features for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    biases = sum(layer.num_features for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    # As it ships: a norm is folded into a bias.
    assert count_params(graph) == sum(p.numel() for p in module.parameters()) - norms + biases


@pytest.mark.parametrize("levels", LEVELS[:3])
def test_values_by_the_formula(levels: list[tuple[int, ...]]) -> None:
    module = filled(levels, 3, 8)
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, *shape, generator=generator) for shape in levels]
    lateral = [layer(x) for layer, x in zip(module.lateral, maps, strict=True)]
    above = lateral[-1]
    for own in reversed(lateral[:-1]):
        rows = torch.tensor([row * above.shape[2] // own.shape[2] for row in range(own.shape[2])])
        columns = torch.tensor([column * above.shape[3] // own.shape[3] for column in range(own.shape[3])])
        above = own + above[:, :, rows][..., columns]
    expected = module.answer(module.smooth[2](module.smooth[1](functional.relu(above))))
    torch.testing.assert_close(module(*maps), expected, rtol=1e-4, atol=1e-5)


def test_the_answers_layer_is_found_and_made_anew() -> None:
    module, head = nn.Sequential(filled([(8, 6, 5)], 3, 8)), PyramidHead(5)
    (name,) = head.find(module, torch.zeros(1, 8, 6, 5))
    assert name == "0.answer"
    new = head.fresh(module.get_submodule(name))
    assert new.weight.shape == (5, 8, 1, 1) and not new.weight.any() and not new.bias.any()
    with pytest.raises(BadInput, match="does not end in a pyramid"):
        head.find(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(1, 3, 8, 8))
