"""KNAS against the Gram matrix of stored per-sample gradients, and the official code's numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgewright.proxy.base import score
from edgewright.proxy.scores.knas import knas


def mean_of_gram(model: nn.Module, losses: list[Tensor]) -> float:
    """The n x n matrix, from all weights of all samples."""
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([gradient.flatten() for gradient in found]).double())
    return float((torch.stack(rows) @ torch.stack(rows).T).mean())


def test_equals_the_gram_matrix_of_samples_that_share_a_batch_norm(chain, chain_batch):
    x, y = chain_batch
    chain.train()
    expected = mean_of_gram(chain, list(F.cross_entropy(chain(x), y, reduction="none")))
    assert score(chain, [chain_batch], [knas()])["knas"] == pytest.approx(expected, rel=1e-4)


def test_equals_the_gram_matrix_of_samples_that_go_alone_without_batch_norm():
    generator = torch.Generator().manual_seed(6)
    batches = [(torch.randn(n, 2, 9, 7, generator=generator), torch.arange(n) % 3) for n in (4, 7)]
    model = nn.Sequential(nn.Conv2d(2, 5, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(60, 3))
    alone = [[F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]) for i in range(len(x))] for x, y in batches]
    expected = sum(mean_of_gram(model, losses) for losses in alone) / 2
    assert score(model, batches, [knas()])["knas"] == pytest.approx(expected, rel=1e-4)


def test_the_loss_scales_it_squared(chain, chain_batch):
    once = score(chain, [chain_batch], [knas()])["knas"]
    thrice = score(chain, [chain_batch], [knas()], loss=lambda logits, y: 3 * F.cross_entropy(logits, y))["knas"]
    assert thrice == pytest.approx(9 * once, rel=1e-4)


def fifty() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(50, 3, 12, 12, generator=generator), torch.randint(0, 5, (50,), generator=generator)


def deep() -> nn.Sequential:
    """Thirteen convolutions, two more than the official code looks at."""
    generator = torch.Generator().manual_seed(12)
    layers: list[nn.Module] = [nn.Conv2d(3, 6, 3, padding=1)]
    for _ in range(12):
        layers += [nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                scale = (2 / parameter[0].numel()) ** 0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            elif name.endswith("bias"):
                parameter.zero_()
    return network


def test_equals_the_official_code(chain):
    # Jingjing-NLP/KNAS 5fbb0fe0, exps/NAS-Bench-201/functions.py, `procedure` in mode "train" on 50 batches of one.
    for model, official in ((chain, -2.1572543e-4), (deep(), -2.8747969e-4)):
        assert score(model, [fifty()], [knas(compat=True)])["knas_compat"] == pytest.approx(official, rel=1e-4)


def test_halves_too_small_for_a_covariance_are_the_worst(chain, chain_batch):
    x, y = chain_batch
    assert score(chain, [(x[:3], y[:3])], [knas(compat=True)])["knas_compat"] == float("-inf")
