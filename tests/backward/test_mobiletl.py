"""MobileTL: what the masks pass, what a block keeps, which layers learn."""

import copy
import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.account import measure_kept, predict_kept, total
from edgewright.backward.base import Rule, swapped
from edgewright.backward.exact import BitMask, Exact, FrozenNorm
from edgewright.backward.rules.mobiletl import SignedMask, cosine, inverted_residuals, mobiletl
from edgewright.backward.survey import survey
from edgewright.core.errors import BadInput


def block(channels: int, expansion: int, activation: type[nn.Module] = nn.ReLU6, inplace: bool = True) -> nn.Sequential:
    wide = channels * expansion
    return nn.Sequential(
        nn.Conv2d(channels, wide, 1, bias=False),
        nn.BatchNorm2d(wide),
        activation(inplace=inplace),
        nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
        nn.BatchNorm2d(wide),
        activation(inplace=inplace),
        nn.Conv2d(wide, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


class Small(nn.Module):
    """A stem, a block without expansion, two with, a head."""

    def __init__(self, activation: type[nn.Module] = nn.Hardswish) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), activation())
        self.first = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        )
        self.second, self.third = block(6, 4, activation), block(6, 6, activation)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        x = x + self.second(x)
        return self.head((x + self.third(x)).mean((2, 3)))


@pytest.mark.parametrize("layer", [nn.Hardswish(), nn.SiLU(inplace=True), nn.GELU(), nn.ReLU6(), nn.ReLU()])
def test_the_signed_mask_passes_what_is_positive(layer: nn.Module) -> None:
    x, gradient = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    x[0, 0, :3] = torch.tensor([0.0, -0.0, 7.0])
    source = x.clone().requires_grad_()
    with swapped(nn.Sequential(layer), {"0": SignedMask()}):
        output = layer(source * 1.0)
    (ours,) = torch.autograd.grad(output, source, gradient)
    assert torch.equal(ours, gradient * (x > 0))
    if isinstance(layer, nn.ReLU):
        assert torch.equal(ours, torch.autograd.grad(layer(source), source, gradient)[0])


def test_the_cosine_to_the_true_slope_is_the_integral() -> None:
    x = torch.linspace(-12, 12, 2_000_001, dtype=torch.float64).requires_grad_()
    weight = (-(x.detach() ** 2) / 2).exp()
    for layer, least in ((nn.Hardswish(), 0.9), (nn.SiLU(), 0.93), (nn.GELU(), 0.95)):
        (slope,) = torch.autograd.grad(layer(x).sum(), x)
        mask = (x > 0).double()
        closed = (weight * slope * mask).sum() / ((weight * slope**2).sum() * (weight * mask).sum()).sqrt()
        random = torch.Generator().manual_seed(1)
        seen = cosine(layer, torch.randn(400_000, generator=random), torch.randn(400_000, generator=random))
        assert seen == pytest.approx(float(closed), abs=3e-3) and closed > least


def test_a_shift_only_norm_is_autograds_with_all_else_frozen() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.BatchNorm2d(5)).eval()
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None and norm.running_mean is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.3, 2)
    nn.init.normal_(norm.weight)
    norm.weight.requires_grad_(False)
    x, gradient = torch.randn(3, 5, 4, 7, requires_grad=True), torch.randn(3, 5, 4, 7)
    wanted = torch.autograd.grad(model(x), [x, norm.bias], gradient)
    with swapped(model, {"0": FrozenNorm("bias")}):
        assert total(measure_kept(model, x)) == 0
        ours = torch.autograd.grad(model(x), [x, norm.bias], gradient)
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def stored(model: nn.Sequential, rules: dict[str, Rule], x: Tensor) -> int:
    """Bytes of a step, predicted and measured, with the parameters that the rules name."""
    model.requires_grad_(True)
    for name, rule in rules.items():
        for parameter, tensor in model.get_submodule(name).named_parameters():
            tensor.requires_grad_(parameter in rule.trained(model.get_submodule(name)))
    with swapped(model, rules):
        assert total(predict_kept(model, x)) == total(measure_kept(model, x))
        return total(measure_kept(model, x))


def test_a_block_keeps_as_many_bytes_as_the_sheet_derives() -> None:
    channels, t, x = 8, 6, torch.randn(2, 8, 12, 20)
    unit = x.numel() * 4
    model = block(channels, t).train()
    sites = survey(model, x)
    full: dict[str, Rule] = {str(i): Exact() for i in (0, 3, 6)}
    full |= {str(i): FrozenNorm("all") for i in (1, 4, 7)} | {str(i): BitMask() for i in (2, 5)}
    ours = dict(mobiletl(sites, model, blocks=1).rules)
    assert "7" not in ours
    most, least = stored(model, full, x), stored(model, ours, x)
    assert most == unit * ((1 + 2 * t) + (2 * t + 1) + 2 * t / 32)
    statistics = 2 * channels * 4  # of norm 3, which has a batch's
    assert least == unit * ((1 + 2 * t) + 1 + 2 * t / 32) + statistics
    assert (most / unit, least / unit) == pytest.approx((26.4, 14.4), rel=2e-3)
    assert 0.45 < 1 - least / most < 0.46
    for activation, inplace, units in ((nn.ReLU6, True, 38), (nn.ReLU6, False, 38), (nn.ReLU, True, 26)):
        assert total(measure_kept(block(channels, t, activation, inplace).eval(), x)) == units * unit


def test_hard_swish_blocks_save_more() -> None:
    x = torch.randn(2, 8, 12, 20)
    model = block(8, 6, nn.Hardswish, inplace=False).eval()
    plain = total(measure_kept(model, x))
    assert plain == 38 * x.numel() * 4
    assert 1 - stored(model, dict(mobiletl(survey(model, x), model, blocks=1).rules), x) / plain == pytest.approx(
        0.62, abs=0.005
    )


def test_only_the_last_blocks_learn_and_nothing_below_is_kept() -> None:
    torch.manual_seed(0)
    model, x = Small().train(), torch.randn(4, 3, 14, 18)
    blocks = inverted_residuals(survey(model, x))
    assert [(one.layers[0], one.layers[-1]) for one in blocks] == [
        ("first.0", "first.3"), ("second.0", "second.7"), ("third.0", "third.7")
    ]  # fmt: skip
    what = mobiletl(survey(model, x), model, blocks=2)
    assert set(what.trained) == {
        *(f"{b}.{i}.weight" for b in ("second", "third") for i in (0, 3, 6, 7)),
        *(f"{b}.{i}.bias" for b in ("second", "third") for i in (1, 4, 7)),
        "head.weight",
        "head.bias",
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in what.trained)
    before = {name: tensor.clone() for name, tensor in model.named_buffers() if "running_mean" in name}
    with swapped(model, what.rules):
        kept = measure_kept(model, x)
        model(x).square().sum().backward()
    assert not [one for one in kept if one.layer.startswith(("stem", "first"))]
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(what.trained)
    moved = {name for name, tensor in model.named_buffers() if name in before and not torch.equal(tensor, before[name])}
    assert moved == {"second.7.running_mean", "third.7.running_mean"}


def test_gradients_with_relu_are_exact() -> None:
    torch.manual_seed(0)
    model, x = Small(nn.ReLU6).eval(), torch.randn(4, 3, 14, 18)
    what = mobiletl(survey(model, x), model, blocks=3)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in what.trained)
    learning = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(model(x).square().sum(), learning)
    with swapped(model, what.rules):
        ours = torch.autograd.grad(model(x).square().sum(), learning)
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_refusals() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    with pytest.raises(BadInput, match="the model has none"):
        mobiletl(survey(plain, torch.randn(1, 3, 9, 9)), plain)
    model = Small()
    with pytest.raises(BadInput, match="5 inverted residual blocks were to learn, the model has 3"):
        mobiletl(survey(model, torch.randn(1, 3, 9, 9)), model, blocks=5)
    (site,) = survey(nn.Sequential(nn.Hardsigmoid()), torch.randn(2, 3))
    assert "hardsigmoid does not rise" in (SignedMask().refuse(site.calls[0]) or "")
    assert math.isfinite(SignedMask().stored_bytes(site.calls[0], (True,)))


class Digits(nn.Module):
    """Four inverted residuals with hard-swish on 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.Hardswish())
        self.blocks = nn.ModuleList(block(12, 4, nn.Hardswish) for _ in range(4))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for index, layer in enumerate(self.blocks):
            x = x + layer(x)
            x = functional.avg_pool2d(x, 2) if index == 1 else x
        return self.head(x.mean((2, 3)))


def learned(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    steps = len(y) // 32
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=epochs * steps)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(y)).split(32)[:steps]:
            optimizer.zero_grad()
            functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()


@pytest.mark.slow
def test_transfer_is_as_good_as_learning_everything_in_the_last_blocks() -> None:
    """From the digits 0 to 4 to the digits 5 to 9, the last two of four blocks; means over three seeds."""
    images, target = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    y = torch.tensor(target)
    old = y < 5
    new, labels = x[~old], y[~old] - 5
    right: dict[str, list[float]] = {"head": [], "all": [], "mobiletl": []}
    for seed in range(3):
        torch.manual_seed(seed)
        first = Digits()
        learned(first, x[old], y[old], 6)
        first.head = nn.Linear(12, 5)
        what = mobiletl(survey(first, x[:4]), first, blocks=2)
        for name, found in right.items():
            torch.manual_seed(100 + seed)
            model = copy.deepcopy(first)
            for parameter, tensor in model.named_parameters():
                last = parameter.startswith(("head", "blocks.2", "blocks.3")[: 1 if name == "head" else 3])
                tensor.requires_grad_(parameter in what.trained if name == "mobiletl" else last)
            with swapped(model, what.rules if name == "mobiletl" else {}):
                learned(model, new[:400], labels[:400], 8)
                model.eval()
                found.append(100 * float((model(new[400:]).argmax(1) == labels[400:]).float().mean()))
    mean = {name: sum(values) / 3 for name, values in right.items()}
    assert mean["mobiletl"] > mean["all"] - 1 > mean["head"] + 15, mean
