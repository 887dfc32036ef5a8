"""The int8 file in ONNX Runtime against the network that learned to be it, step for step."""

import functools

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from compress.networks import images, lived_in, mobile
from edgewright.compress.base import apply
from edgewright.compress.bits import qat
from edgewright.compress.planner import plan
from edgewright.core.errors import EdgewrightError
from edgewright.export.int8.learned import learned_ranges, quantise_learned
from edgewright.export.running import outputs


class Paths(nn.Module):
    """ReLU6, a fork that a ReLU and a sum read, maxima, a shortcut by slicing and padding, paths joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU6(inplace=True)
        self.left, self.right = nn.Conv2d(6, 6, 3, 2, 1, groups=6), nn.Conv2d(6, 9, 3, 2, 1)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(15, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        left, right = self.left(x), self.right(x)
        right = torch.relu(right + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)))
        x = torch.cat([torch.relu(left) + left, right], 1)
        x = self.pool(x).mean((2, 3), keepdim=True)
        return self.last(x.view(x.size(0), -1))


class Gated(nn.Module):
    """Squeeze and excite with a hard sigmoid, SiLU, hard swish, a sigmoid gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 7)
        self.soft, self.hard, self.means = nn.SiLU(inplace=True), nn.Hardswish(inplace=True), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.soft(self.stem(x))
        y = self.hard(self.wide(x))
        y = y * functional.hardsigmoid(self.excite(torch.relu(self.squeeze(self.means(y)))))
        x = x + y * torch.sigmoid(self.gate(x))
        return self.last(torch.flatten(self.means(x), 1))


@functools.cache
def made(name: str) -> tuple[nn.Module, Tensor]:
    if name == "paths":
        return lived_in(Paths()), images(16, 3, 14, 14)
    if name == "gated":
        return lived_in(Gated()), images(16, 3, 14, 18)
    network, x = lived_in(mobile()), images(16, 3, 18, 14)
    return apply(network, plan(network, x[:2], ["fold_batch_norm"]), x[:2]), x


def taught(net: qat.Rounded, x: Tensor, steps: int = 4) -> qat.Rounded:
    """A few steps, so that nothing is what calibration gave."""
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9)
    labels = torch.arange(len(x)) % 7
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(net(x), labels).backward()
        optimizer.step()
    return net.eval()


def steps_off(net: qat.Rounded, file: onnx.ModelProto, x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many steps of the output the file is off; and both outputs."""
    with torch.no_grad():
        wanted = net(x).numpy()
    found = np.asarray(outputs(file, [(one[None],) for one in x.numpy()])[0])
    step = list(net.activations().values())[-1].step()[0].item()
    return np.abs(found - wanted) / step, found, wanted


@pytest.mark.parametrize(("name", "bits"), [("mobile", 8), ("mobile", 2), ("paths", 3), ("gated", 8)])
def test_the_file_computes_what_was_trained(name: str, bits: int) -> None:
    network, x = made(name)
    net = taught(qat.prepared(network, x[:8], bits=bits, kept=0.999), x)
    plain, file = quantise_learned(net, x[:3])
    other = images(*x.shape, seed=9)
    off, found, wanted = steps_off(net, file, other)
    assert off.max() < 1.01, "never more than one step"
    # A number near half a step goes either way with the last bit of a sum, which every processor adds in its order.
    assert (off < 0.01).mean() > 0.8, "nearly always none"
    assert (found.argmax(1) == wanted.argmax(1)).all()
    with torch.no_grad():
        unrounded = net.float_network()(other).numpy()
    np.testing.assert_allclose(outputs(plain, [(one[None],) for one in other.numpy()])[0], unrounded, rtol=0, atol=1e-3)
    assert (np.abs(wanted - unrounded).max() / np.abs(unrounded).max()) > 1e-4, "rounding is not nothing"


def test_a_mean_at_the_end_is_not_rounded_in_either() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.last = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 7, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.one(x))).mean((2, 3))

    torch.manual_seed(0)
    net, other = qat.prepared(Pooled(), images(8, 3, 6, 5)), images(8, 3, 6, 5, seed=9)
    _, file = quantise_learned(net, images(3, 3, 6, 5))
    off, found, _ = steps_off(net, file, other)
    assert off.max() < 1.01
    step = list(net.activations().values())[-1].step()[0].item()
    assert np.abs(found / step - np.round(found / step)).max() > 0.1


def test_tensors_that_are_alike_for_one_image_keep_their_own_ranges() -> None:
    """Both gates are shut for a blank image: told by it alone, one would get the other's range."""

    class Gates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1)
            self.fine, self.coarse, self.last = nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 1), nn.Linear(5, 7)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fine(torch.relu(self.one(x))) + self.coarse(torch.relu(self.two(x)))
            return self.last(y.mean((2, 3)))

    torch.manual_seed(3)
    network, x = Gates(), images(8, 3, 6, 5)
    for layer, size in ((network.one, 1.0), (network.two, 40.0), (network.fine, 40.0), (network.coarse, 1.0)):
        layer.weight.data.mul_(size)
        layer.state_dict()["bias"].fill_(-1e-3)
    net = qat.prepared(network, x)
    _, file = quantise_learned(net, torch.zeros(1, 3, 6, 5))
    off, _, _ = steps_off(net, file, images(8, 3, 6, 5, seed=9))
    assert off.max() < 1.01


def test_steps_and_ranges_stand_in_the_file_as_they_were_learned() -> None:
    network, x = made("mobile")
    net = taught(qat.prepared(network, x[:8], bits=4), x)
    plain, file = quantise_learned(net, x[:3])
    held = {one.name: numpy_helper.to_array(one) for one in file.graph.initializer}
    by_reader = {node.output[0]: node for node in file.graph.node}
    convs = [node for node in file.graph.node if node.op_type in ("Conv", "Gemm")]
    learned = list(net.weights().values())
    assert len(convs) == len(learned)
    activations = {
        float(held[node.input[1]]) for node in file.graph.node if node.op_type == "QuantizeLinear"
    }  # fmt: skip
    assert activations == {part.step()[0].item() for part in net.activations().values()}
    for node, (weight, steps) in zip(convs, learned, strict=True):
        source = by_reader[node.input[1]]
        numbers, scales = held[source.input[0]], held[source.input[1]]
        np.testing.assert_array_equal(scales, steps.numpy())
        assert numbers.dtype == np.int8
        assert np.abs(numbers.astype(int)).max() <= 7, "four bits in eight"
        shape = (-1, *(1,) * (weight.dim() - 1))
        np.testing.assert_allclose(numbers * scales.reshape(shape), weight.numpy(), rtol=1e-6, atol=1e-9)
    net.network.get_submodule("stem.0").weight.data.mul_(-1)  # pyright: ignore
    with pytest.raises(EdgewrightError, match=r"rounded tensor \d+ of the network, .* is not in the file"):
        learned_ranges(net, plain, x[:1])  # the file is of before


def test_a_range_that_learned_to_pass_six_is_cut_in_the_file_too() -> None:
    network, x = made("paths")
    net = qat.prepared(network, x[:8])
    for part in net.activations().values():
        if part.highest == 6:
            part.high.data.fill_(9.0)
            part.low.data.fill_(-1.0)
    _, file = quantise_learned(net, x[:3])
    off, _, _ = steps_off(net, file, 4 * x)
    assert off.max() < 1.01
