"""GraSP against two backward passes, finite differences, a closed form, and the official number."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgewright.proxy.base import score
from edgewright.proxy.calls import weighted_layers
from edgewright.proxy.scores.grasp import grasp

# SamsungLabs/zero-cost-nas at a43bfbc and SLDGroup/survey-zero-shot-nas at b666902, on the chain of blocks.
OFFICIAL = -0.3603460192680359


def two_backward_passes(model: nn.Module, x, y) -> float:
    weights = [layer.weight for layer in weighted_layers(model).values()]
    first = torch.autograd.grad(F.cross_entropy(model(x), y), weights, create_graph=True)
    second = torch.autograd.grad(sum((g.detach() * g).sum() for g in first), weights)
    return -sum(float((w.detach() * h).sum()) for w, h in zip(weights, second, strict=True))


class Excited(nn.Module):
    """Squeeze-and-excite, pooling, dropout that does nothing, and `activation`s."""

    def __init__(self, activation: type[nn.Module], norm: nn.Module, gate=torch.sigmoid) -> None:
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(2, 6, 3, padding=1), norm, activation()
        self.gate, self.squash = nn.Conv2d(6, 6, 1), gate
        self.pool, self.deep = nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, groups=1)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = self.act(self.norm(self.stem(x)))
        x = x * self.squash(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return self.head(self.act(self.deep(self.pool(x))).mean((2, 3)))


def test_official_number(chain, chain_batch):
    assert score(chain, [chain_batch], [grasp()])["grasp"] == pytest.approx(OFFICIAL, rel=1e-4)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.Sigmoid, nn.Tanh])
def test_equals_two_backward_passes(activation, batches):
    torch.manual_seed(2)
    model = Excited(activation, nn.BatchNorm2d(6)).double()
    x, y = batches(1)[0]
    expected = two_backward_passes(model, x.double(), y)
    assert score(model, [(x.double(), y)], [grasp()])["grasp"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 6), nn.InstanceNorm2d(6, affine=True)])
def test_other_norms_go_backwards_twice(norm, batches):
    torch.manual_seed(3)
    model = Excited(nn.ReLU, norm).double()
    x, y = batches(1)[0]
    expected = two_backward_passes(model, x.double(), y)
    assert score(model, [(x.double(), y)], [grasp()])["grasp"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6), nn.GroupNorm(3, 6)], ids=["forwards", "backwards"])
def test_equals_finite_differences(norm, batches):
    torch.manual_seed(4)
    model = Excited(nn.Tanh, norm, nn.Hardsigmoid()).double()
    x, y = batches(1)[0]
    x = x.double()
    weights = {f"{name}.weight": layer.weight.detach() for name, layer in weighted_layers(model).items()}

    def slopes(at):
        leaves = {name: value.detach().requires_grad_() for name, value in at.items()}
        loss = F.cross_entropy(torch.func.functional_call(model, leaves, (x,)), y)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    g, step = slopes(weights), 1e-4
    up = slopes({name: w + step * g[name] for name, w in weights.items()})
    down = slopes({name: w - step * g[name] for name, w in weights.items()})
    expected = -sum(float((w * (up[name] - down[name])).sum()) / (2 * step) for name, w in weights.items())
    assert score(model, [(x, y)], [grasp()])["grasp"] == pytest.approx(expected, rel=1e-4)


def test_layers_before_batch_norm_add_their_squared_gradient(batches):
    """Every weight in front of a batch norm with next to no eps: w^T H = - g^T, whatever the loss."""
    torch.manual_seed(5)
    norms = [nn.BatchNorm2d(6, eps=1e-14), nn.BatchNorm2d(4, eps=1e-14)]
    model = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, bias=False), norms[0], nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False), norms[1]),
        *(nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ).double()
    x, y = batches(1)[0]
    weights = [model[0].weight, model[3].weight]
    slopes = torch.autograd.grad(F.cross_entropy(model(x.double()), y), weights)
    expected = sum(float(slope.square().sum()) for slope in slopes)
    assert score(model, [(x.double(), y)], [grasp()])["grasp"] == pytest.approx(expected, rel=1e-8)
