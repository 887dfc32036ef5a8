"""Integer networks against a float simulation of the same scheme, and against the float network's accuracy."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from compress.networks import images, lived_in, mobile
from edgewright.compress.base import apply
from edgewright.compress.bits.integer import IntegerNetwork, whole
from edgewright.compress.bits.integer_only import quantise
from edgewright.compress.planner import plan
from edgewright.core.errors import BadInput


class Residual(nn.Module):
    """Everything that has an integer form: strides, groups, a residual, ReLU and ReLU6, pooling, dropout."""

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 12, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.one = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.two = nn.Conv2d(12, 12, 1)
        self.down = nn.Conv2d(12, 24, 3, stride=2, groups=2)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.stem(x)))
        x = x + self.two(functional.relu6(self.one(x)))
        x = functional.relu6(self.down(x))
        return self.head(self.drop(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)))


def simulated(network: IntegerNetwork, codes: np.ndarray) -> dict[str, np.ndarray]:
    """The same in floats, as fake quantisation does it: float64 holds every sum exactly."""
    values = {"input": torch.from_numpy(codes).double()}
    for step in network.steps:
        x = values[step.inputs[0]]
        if step.kind == "flatten":
            values[step.name] = x.flatten(1)
            continue
        if step.kind == "max_pool":
            values[step.name] = functional.max_pool2d(x, step.window, step.stride, step.padding)
            continue
        if step.kind == "add":
            parts = [values[name] for name in step.inputs]
        elif step.kind == "mean":
            parts = [x.sum((2, 3))]
        elif step.kind == "clamp":
            parts = [x]
        else:
            weight, bias = torch.from_numpy(step.weight).double(), torch.from_numpy(step.bias).double()
            run = functional.linear if step.kind == "linear" else None
            parts = [
                run(x, weight, bias)
                if run
                else functional.conv2d(x, weight, bias, step.stride, step.padding, 1, step.groups)
            ]
        total = torch.zeros(())
        for part, by in zip(parts, step.by, strict=True):
            factor = torch.from_numpy(by.value).reshape(1, -1, *(1,) * (part.dim() - 2))
            total = total + torch.floor(part * factor + 0.5)
        values[step.name] = total.clamp(step.low, step.high)
    return {name: value.numpy() for name, value in values.items()}


@pytest.mark.parametrize("bits", [8, 4, {"stem": 8, "one": 4, "two": 8, "down": 5}], ids=["8", "4", "mixed"])
def test_integers_are_the_float_simulation_bit_by_bit(bits) -> None:
    network = lived_in(Residual(3))
    made = quantise(network, images(16, 3, 11, 8), bits=bits)
    codes = made.codes(images(40, 3, 11, 8, seed=9).numpy())
    expected, found = simulated(made, codes), made.trace(codes)
    for name, value in found.items():
        whole(value)
        assert np.array_equal(value, expected[name]), name
    width = bits if isinstance(bits, int) else 4
    assert next(step.name for step in made.steps if step.kind == "conv") == "relu"
    assert max(abs(step.weight).max() for step in made.steps if step.groups == 12) <= 2 ** (width - 1)
    relu6 = next(step for step in made.steps if step.groups == 12)
    assert found[relu6.name].min() >= 0
    assert found[relu6.name].max() * relu6.scale <= 6 + relu6.scale


def test_codes_stand_for_what_the_network_computes() -> None:
    network, x = lived_in(Residual(3)), images(64, 3, 11, 8)
    made = quantise(network, x)
    with torch.no_grad():
        logits = network(x).numpy()
    error = np.abs(made.logits(x.numpy()) - logits)
    assert error.mean() < 0.02 * np.abs(logits).mean()
    coarse = np.abs(quantise(network, x, bits=3).logits(x.numpy()) - logits)
    assert coarse.mean() > 5 * error.mean()
    assert made.weight_bytes == sum(p.numel() * (4 if p.dim() == 1 else 1) for p in network.parameters())


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A network that has learned the digits, and all of them."""
    data = load_digits()
    x = torch.from_numpy(data.images).float()[:, None] / 16 - 0.3
    y = torch.from_numpy(data.target)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Residual()
    network.drop.eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(250):
        pick = torch.randint(0, 1200, (64,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(network(x[pick]), y[pick]).backward()
        optimizer.step()
    return network.eval(), x, y


def test_accuracy_on_digits_is_kept(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, x, y = digits
    with torch.no_grad():
        accuracy = (network(x).argmax(1) == y).double().mean().item()
    made = quantise(network, x[:200])
    codes = made.codes(x.numpy())
    found = made.run(codes)
    assert np.array_equal(found, simulated(made, codes)[made.steps[-1].name])
    assert accuracy > 0.9
    assert (found.argmax(1) == y.numpy()).mean() > accuracy - 0.01


def test_folded_mobile_network_and_what_has_no_integer_form() -> None:
    network, x = lived_in(mobile()), images(4, 3, 18, 22)
    with pytest.raises(BadInput, match=r"batch_norm in stem\.1 has no form in integers here; fold batch norms first"):
        quantise(network, x)
    folded = apply(network, plan(network, x, ["fold_batch_norm"]), x)
    made = quantise(folded, x)
    with torch.no_grad():
        logits = folded(x).numpy()
    assert np.corrcoef(made.logits(x.numpy()).ravel(), logits.ravel())[0, 1] > 0.98
    for layer, name in ((nn.SiLU(), "silu"), (nn.AvgPool2d(2), "avg_pool2d"), (nn.Hardtanh(-1, 1), "hardtanh")):
        with pytest.raises(BadInput, match=f"{name} in 1 has no form in integers"):
            quantise(nn.Sequential(nn.Conv2d(3, 4, 1), layer), x)
    with pytest.raises(BadInput, match="9 bits; from 2 to 8"):
        quantise(folded, x, bits=9)


def test_percentile_ranges_leave_outliers_out() -> None:
    network, x = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2 * 30, 3)), images(4, 1, 5, 6)
    x[0, 0, 0, 0] = 500
    assert quantise(network, x).input_scale == pytest.approx(500 / 127)
    assert quantise(network, x, percentile=99).input_scale < 0.05
