"""Sums over layers against plain autograd, masks, stored activations, and official numbers.

Official numbers: SamsungLabs/zero-cost-nas at a43bfbc, `find_measures` on the chain of blocks and its batch (one batch
of 6, cross-entropy); SLDGroup/survey-zero-shot-nas at b666902 gives the same.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgewright.proxy.base import score
from edgewright.proxy.resolve import resolve_proxies
from edgewright.proxy.scores.saliency import fisher, grad_norm, plain, snip

OFFICIAL = {
    "grad_norm": 2.1195273399353027,
    "snip": 5.554370880126953,
    "plain": 0.7949702143669128,
    "fisher_compat": 0.9771345853805542,
}
ALL = (grad_norm(), snip(), plain(), fisher(), fisher(compat=True))


def without_dropout(small) -> nn.Module:
    model = small()
    model.drop.p = 0.0
    return model


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_number(name, chain, chain_batch):
    assert score(chain, [chain_batch], resolve_proxies([name]))[name] == pytest.approx(OFFICIAL[name], rel=1e-4)


def test_weights_and_gradients_by_plain_autograd(small, batches):
    model = without_dropout(small)
    norms = snips = plains = 0.0
    for x, y in batches(2):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        for layer in (model.stem[0], model.deep, model.head):  # nothing reads `dead`
            weight, slope = layer.weight.detach().double(), layer.weight.grad.double()
            norms += float(slope.square().sum().sqrt()) / 2
            snips += float((weight * slope).abs().sum()) / 2
            plains += float((weight * slope).sum()) / 2
    values = score(without_dropout(small), batches(2), ALL)
    assert values["grad_norm"] == pytest.approx(norms, rel=1e-4)
    assert values["snip"] == pytest.approx(snips, rel=1e-4)
    assert values["plain"] == pytest.approx(plains, rel=1e-4)


def test_snip_is_the_gradient_of_a_mask(chain, chain_batch):
    x, y = chain_batch
    names = [name for name, parameter in chain.named_parameters() if parameter.ndim > 1]
    masks = {name: torch.ones_like(chain.get_parameter(name), requires_grad=True) for name in names}
    masked = {name: chain.get_parameter(name) * mask for name, mask in masks.items()}
    F.cross_entropy(torch.func.functional_call(chain.train(), masked, (x,)), y).backward()
    expected = sum(float(mask.grad.abs().sum()) for mask in masks.values())
    assert score(chain, [chain_batch], [snip()])["snip"] == pytest.approx(expected, rel=1e-4)


def test_plain_leaves_out_layers_before_batch_norm(chain, chain_batch):
    classifier = []
    hook = chain.classifier.register_forward_hook(lambda module, given, output: classifier.append(given[0].detach()))
    value = score(chain, [chain_batch], [plain()])["plain"]
    hook.remove()
    weight = chain.classifier.weight.detach().requires_grad_()
    F.cross_entropy(F.linear(classifier[-1], weight, chain.classifier.bias), chain_batch[1]).backward()
    assert value == pytest.approx(float((weight.detach() * weight.grad).sum()), rel=1e-3)


def test_fisher_over_stored_activations(small, batches):
    model = without_dropout(small)
    (x, y) = batches(1)[0]
    layers = {"stem": model.stem[0], "deep": model.deep, "head": model.head}
    kept = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda module, given, output, name=name: kept.__setitem__(name, output))
    model.stem[2].inplace = False
    slopes = torch.autograd.grad(F.cross_entropy(model(x), y), [kept[name] for name in layers])
    channel = weight = 0.0
    for (name, layer), slope in zip(layers.items(), slopes, strict=True):
        product = (kept[name] * slope).detach()
        for c in range(product.shape[1]):
            sums = [float(product[n, c].sum()) for n in range(len(x))]
            found = sum(s**2 for s in sums) / (2 * len(x))
            channel += found
            weight += found * layer.weight[c].numel()
    values = score(without_dropout(small), [(x, y)], ALL)
    assert values["fisher"] == pytest.approx(channel, rel=1e-4)
    assert values["fisher_compat"] == pytest.approx(weight, rel=1e-4)


@pytest.mark.parametrize(("name", "power"), [("grad_norm", 1), ("snip", 1), ("plain", 1), ("fisher", 2)])
def test_scale_of_the_loss(name, power, small, batches):
    one = score(without_dropout(small), batches(2), ALL)[name]
    eight = score(without_dropout(small), batches(2), ALL, loss=lambda z, y: 8 * F.cross_entropy(z, y))[name]
    assert eight == pytest.approx(8**power * one, rel=1e-4)


def test_a_layer_called_twice_counts_both_calls_in_fisher(batches):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            self.first = self.conv(x)
            self.second = self.conv(self.first)
            return self.second.mean((2, 3))

    model = Twice()
    x, y = batches(1)[0]
    y = y % 2
    slopes = torch.autograd.grad(F.cross_entropy(model(x), y), [model.first, model.second])
    expected = sum(
        float((a.detach() * g).sum((2, 3)).square().mean(0).sum() / 2)
        for a, g in zip((model.first, model.second), slopes, strict=True)
    )
    model.first = model.second = None
    assert score(model, [(x, y)], [fisher()])["fisher"] == pytest.approx(expected, rel=1e-4)
