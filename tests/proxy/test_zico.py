"""ZiCo against a case by hand, stored gradients in numpy, and the official function."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgewright.proxy.base import Seen, Subject, score
from edgewright.proxy.scores.size import log_sizes
from edgewright.proxy.scores.zico import zico

both = pytest.mark.parametrize("compat", [False, True])


def run(gradients: list[dict[str, torch.Tensor]], compat: bool) -> float:
    """The proxy on gradients given by hand."""
    proxy, model = zico(compat=compat), nn.Identity()
    state = proxy.init(Subject(model, len(gradients)))
    for index, found in enumerate(gradients):
        for name, gradient in found.items():
            state = proxy.watch(state, Seen("gradients", name, model, gradient, gradient, index))
    return proxy.finish(state)


def official(gradients: list[dict[str, torch.Tensor]], absolute: bool = False) -> float:
    """The official code's function, line by line, over all stored gradients; `absolute`: the paper's variance."""
    total = 0.0
    for name in gradients[0]:
        stored = np.array([found[name].flatten().numpy() for found in gradients], dtype=np.float64)
        sd = np.std(np.abs(stored) if absolute else stored, axis=0)
        nonzero = np.nonzero(sd)[0]
        summed = np.sum(np.mean(np.abs(stored), axis=0)[nonzero] / sd[nonzero])
        if summed != 0:
            total += np.log(summed)
    return float(total)


def network_gradients(small, batches, count: int) -> list[dict[str, torch.Tensor]]:
    model = small()
    model.drop.p = 0.0
    found = []
    for x, y in batches(count):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        found.append(
            {
                n: torch.zeros_like(m.weight) if m.weight.grad is None else m.weight.grad.clone()
                for n, m in layers.items()
            }
        )
    return found


def random_gradients(count: int, scale: float = 1.0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [
        {"a": scale * torch.randn(3, 2, 5, 4, generator=generator), "b": scale * torch.randn(7, generator=generator)}
        for _ in range(count)
    ]


def test_two_layers_by_hand():
    first = {"a": torch.tensor([3.0, -1.0, 2.0]), "b": torch.tensor([[1.0, 0.0]])}
    second = {"a": torch.tensor([1.0, 3.0, 2.0]), "b": torch.tensor([[-2.0, 0.0]])}
    # |g|: a: (3+1)/(3-1) = 2, (1+3)/(3-1) = 2, constant: left out; b: (1+2)/(2-1) = 3, constant
    assert run([first, second], compat=False) == pytest.approx(math.log(4) + math.log(3), rel=1e-6)
    # signed: a: 4/2 = 2, 4/4 = 1; b: 3/3 = 1
    assert run([first, second], compat=True) == pytest.approx(math.log(3) + math.log(1), abs=1e-6)


@both
@pytest.mark.parametrize("count", [2, 3, 8])
def test_equals_numpy_over_stored_gradients(compat, count):
    stored = random_gradients(count)
    assert run(stored, compat) == pytest.approx(official(stored, absolute=not compat), rel=1e-4)


@both
def test_equals_the_official_code_on_a_network(compat, small, batches):
    model = small()
    model.drop.p = 0.0
    value = score(model, batches(2), [zico(compat=compat)])[zico(compat=compat).name]
    assert value == pytest.approx(official(network_gradients(small, batches, 2), absolute=not compat), rel=1e-4)


def test_official_number(chain, chain_batch):
    """SLDGroup/ZiCo at b0fec65, `getzico` (its `.cuda()` made to do nothing) on the chain of blocks and two batches."""
    other = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(4)), torch.tensor([1, 0, 3, 2, 4, 0])
    value = score(chain, [chain_batch, other], [zico(compat=True)])["zico_compat"]
    assert value == pytest.approx(35.93983840942383, rel=1e-4)


@both
def test_closed_form_of_two_batches(compat):
    one, two = random_gradients(2)
    expected = 0.0
    for name in one:
        g, h = one[name].double(), two[name].double()
        gap = (g - h).abs() if compat else (g.abs() - h.abs()).abs()
        expected += float(((g.abs() + h.abs()) / gap).sum().log())
    assert run([one, two], compat) == pytest.approx(expected, rel=1e-4)


@both
def test_two_batches_never_score_below_the_sum_of_log_sizes(compat, small, batches):
    value = score(small(), batches(2), [zico(compat=compat), log_sizes()])
    assert value[zico(compat=compat).name] >= value["log_sizes"] - 1e-6


@both
def test_order_of_batches_and_scale_of_the_loss_do_not_matter(compat, small, batches):
    model, name = small(), zico(compat=compat).name
    model.drop.p = 0.0
    plain = score(model, batches(4), [zico(compat=compat)])[name]
    assert score(model, batches(4)[::-1], [zico(compat=compat)])[name] == pytest.approx(plain, rel=1e-4)
    # A power of two only moves exponents: the same to the last bit.
    scaled = score(model, batches(4), [zico(compat=compat)], loss=lambda z, y: 1024 * F.cross_entropy(z, y))[name]
    assert scaled == pytest.approx(plain, rel=1e-6)


@both
def test_tiny_gradients_do_not_underflow(compat):
    assert run(random_gradients(2, scale=1e-30), compat) == pytest.approx(run(random_gradients(2), compat), rel=1e-4)


@both
def test_one_batch_and_equal_batches_have_no_score(compat):
    assert run(random_gradients(1), compat) == -math.inf
    assert run([random_gradients(1)[0]] * 2, compat) == -math.inf
