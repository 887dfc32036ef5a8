"""Rounding by hand and its gradients in closed form; where it goes in a graph; what is refused."""

import copy
import functools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.networks import Shared, images, lived_in, mobile
from edgewright.compress.base import apply
from edgewright.compress.bits import qat
from edgewright.compress.planner import plan
from edgewright.core.errors import BadInput


@functools.cache
def folded() -> nn.Module:
    """No test changes it."""
    network, x = lived_in(mobile()), images(2, 3, 18, 14)
    return apply(network, plan(network, x, ["fold_batch_norm"]), x)


def test_weights_round_to_steps_a_channel_and_pass_their_gradient_inside() -> None:
    weight = torch.tensor([[0.31, -0.7, 1.4], [10.0, -2.6, 0.2]])
    rounding = qat.Weight(weight, 3)
    assert rounding.most == 3
    rounding.step.data = torch.tensor([0.2, 2.0])
    given = weight.clone().requires_grad_()
    found = rounding(given)
    torch.testing.assert_close(found, torch.tensor([[0.4, -0.6, 0.6], [6.0, -2.0, 0.0]]))
    g = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    (found * g).sum().backward()
    inside = torch.tensor([[1.0, 0, 0], [0, 1, 1]])  # -0.7 / 0.2 and 10 / 2 are beyond 3 steps
    torch.testing.assert_close(given.grad, g * inside)
    # LSQ: round(v) - v inside, -Q or Q outside; over sqrt(N Q)
    slopes = torch.tensor([[2 - 1.55, -3, 3], [3, -1 + 1.3, 0 - 0.1]])
    assert rounding.step.grad is not None
    torch.testing.assert_close(rounding.step.grad, (g * slopes).sum(1) / math.sqrt(3 * 3))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_first_steps_have_the_least_squared_error(bits: int) -> None:
    weight = images(5, 40, 3, seed=3)
    most = 2 ** (bits - 1) - 1
    steps = qat.first_steps(weight, most)

    def errors(steps: Tensor) -> Tensor:
        shape = steps[:, None, None]
        return ((weight / shape).round().clamp(-most, most) * shape - weight).square().sum((1, 2))

    largest = weight.abs().amax((1, 2)) / most
    if bits == 8:
        torch.testing.assert_close(steps, largest)
        return
    tried = torch.stack([errors(largest * share) for share in torch.linspace(0.3, 1, 36)])
    torch.testing.assert_close(errors(steps), tried.min(0).values, rtol=1e-4, atol=0)
    assert (errors(steps) < errors(largest)).all()


def test_tensors_round_over_a_range_with_zero_in_it() -> None:
    part = qat.Activation("learned", -math.inf, math.inf)
    part.low.data, part.high.data = torch.tensor(-1.0), torch.tensor(4.1)  # 0.02 a step, zero is number 50
    x = torch.tensor([[-3.0, -0.031, 0.0, 0.029, 4.2]], requires_grad=True)
    found = part(x)
    torch.testing.assert_close(found, torch.tensor([[-1.0, -0.04, 0.0, 0.02, 4.1]]))
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1, 1, 1, 0]]
    step, zero = part.step()
    assert (step.item(), zero.item()) == (pytest.approx(0.02), 50)
    part.low.data.fill_(2.0)  # a range that has left zero behind
    assert part.ends()[0] == 0


def test_the_gradient_of_a_range_is_that_of_its_steps() -> None:
    """Of x >= 0, as after a ReLU, LSQ with high = 255 s: the same relative change of s from the same gradient."""
    part = qat.Activation("learned", 0.0, math.inf)
    part.high.data = torch.tensor(5.1)
    x, g = torch.tensor([[0.033, 1.0, 7.0, 2.511]]), torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    (part(x) * g).sum().backward()
    v = x / 0.02
    slopes = torch.where(v < 255, v.round() - v, torch.tensor(255.0))
    of_step = (g * slopes).sum() / math.sqrt(255 * 4)
    assert part.high.grad is not None
    torch.testing.assert_close(part.high.grad, 255 * of_step, rtol=1e-3, atol=0)


def test_a_relu6_never_lets_a_range_pass_six() -> None:
    part = qat.Activation("learned", 0.0, 6.0)
    part.low.data, part.high.data = torch.tensor(-2.0), torch.tensor(9.0)
    assert [end.item() for end in part.ends()] == [0, 6]
    torch.testing.assert_close(part(torch.tensor([[-1.0, 8.0]])), torch.tensor([[0.0, 6.0]]))


def test_running_ranges_follow_what_is_seen_in_training_only() -> None:
    part = qat.Activation("running", -math.inf, math.inf)
    part.low.data, part.high.data = torch.tensor(-1.0), torch.tensor(2.0)
    part.train()
    part(torch.tensor([[-5.0, 4.0]]))
    assert [part.low.item(), part.high.item()] == pytest.approx([-1.04, 2.02])
    part.eval()
    part(torch.tensor([[-50.0, 40.0]]))
    assert part.high.item() == pytest.approx(2.02)
    assert not part.high.requires_grad


def test_biases_round_to_products_of_steps() -> None:
    network, x = folded(), images(8, 3, 18, 14)
    net = qat.prepared(network, x)
    first = next(part for part in net.modules() if isinstance(part, qat.Bias))
    reads = next(iter(net.activations().values()))
    weight = next(part for part in net.modules() if isinstance(part, qat.Weight))
    bias = network.get_submodule("stem.0").bias
    product = reads.step()[0] * weight.steps()
    torch.testing.assert_close(first(bias), (bias / product).round() * product)  # pyright: ignore


def test_every_tensor_between_layers_is_rounded_once() -> None:
    network, x = folded(), images(8, 3, 18, 14)
    net = qat.prepared(network, x)
    kinds = {type(part).__name__: 0 for part in net.network.children()}
    for part in net.network.children():
        kinds[type(part).__name__] += 1
    layers = 1 + 2 + 3 + 3 + 3 + 2  # stem, four blocks, head
    assert kinds["Weight"] == kinds["Bias"] == layers
    assert kinds["Activation"] == layers + 3 + 2, "and three residuals, the input, the mean"
    relus = [part for part in net.activations().values() if part.lowest == 0]
    assert len(relus) == sum(isinstance(part, nn.ReLU) for part in network.modules())


@torch.no_grad()
def test_unrounded_it_is_the_network_and_rounded_it_is_near() -> None:
    network, x = folded(), images(12, 3, 18, 14)
    state = copy.deepcopy(network.state_dict())
    net = qat.prepared(network, x)
    tensors = net.tensors(x)
    with qat._exact(net):
        torch.testing.assert_close(net(x), net.float_network()(x), rtol=1e-4, atol=1e-4)
    scale = network(x).abs().max()
    assert 0 < (net(x) - network(x)).abs().max() < 0.1 * scale
    assert (net.float_network()(x) - network(x)).abs().max() < 0.05 * scale
    assert torch.equal(tensors[0][0], x)
    assert tensors[0][1] == pytest.approx((x.min().item(), x.max().item()))
    assert net(x[:5]).shape == (5, 10)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("bits", [2, 5])
def test_learned_weights_are_on_their_grids(bits: int) -> None:
    network, x = folded(), images(12, 3, 18, 14)
    net = qat.prepared(network, x, bits=bits)
    before = [part.high.item() for part in net.activations().values()]
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9)
    labels = torch.arange(12) % 10
    losses = []
    for _ in range(8):
        net.train()
        loss = functional.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [part.high.item() for part in net.activations().values()] != before, "ranges learn"
    state = net.float_network().state_dict()
    for name, (weight, steps) in net.weights().items():
        assert torch.equal(state[name], weight)
        numbers = weight / steps.reshape(-1, *(1,) * (weight.dim() - 1))
        torch.testing.assert_close(numbers, numbers.round(), rtol=0, atol=1e-3)
        assert numbers.abs().max() <= 2 ** (bits - 1) - 1 + 1e-3


def test_a_copy_learns_by_itself() -> None:
    """A running average of the weights is a copy; its biases must read its own steps."""
    net = qat.prepared(folded(), images(4, 3, 18, 14))
    other = copy.deepcopy(net)
    for part in other.activations().values():
        part.high.data.mul_(0.5)
    bias, twin = (next(part for part in one.modules() if isinstance(part, qat.Bias)) for one in (net, other))
    assert twin._peers[0] is next(iter(other.activations().values()))
    assert bias._peers[0] is next(iter(net.activations().values()))


def test_kept_cuts_what_is_far_out() -> None:
    x = images(4, 3, 18, 14)
    x[0, 0, 0, 0] = 1000.0
    layer = nn.Conv2d(3, 4, 1)
    ranges = [qat.prepared(layer, x, kept=kept).tensors(x)[0][1][1] for kept in (1.0, 0.999)]
    assert ranges[0] == 1000
    assert ranges[1] < 300


class Scaled(nn.Module):
    """A convolution with a scale of its own for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gamma = nn.Conv2d(3, 4, 1), nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * self.gamma.view(1, -1, 1, 1)


def test_what_cannot_be_quantised_is_named() -> None:
    x = images(4, 3, 18, 14)
    with pytest.raises(BadInput, match=r"operator 'batch_norm'.*fold it into the layer before it first"):
        qat.prepared(mobile(), x)
    with pytest.raises(BadInput, match="2 to 8 bits, not 9"):
        qat.prepared(folded(), x, bits=9)
    with pytest.raises(BadInput, match="at least two inputs"):
        qat.prepared(folded(), x[:1])
    with pytest.raises(BadInput, match=r"'.*' works on a parameter"):
        qat.prepared(Scaled(), x)
    with pytest.raises(BadInput, match="operator 'softplus'"):
        qat.prepared(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softplus()), x)
    with pytest.raises(BadInput, match="clips from -1"):
        qat.prepared(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardtanh()), x)
    twice = Shared()
    twice.norm = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(BadInput, match="used more than once"):
        qat.prepared(twice, images(4, 4, 7, 5))
