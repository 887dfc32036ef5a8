"""Tune mode against evaluation mode: the same gradients, fewer bytes; what must be left alone is."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from backward.networks import odd
from edgewright.backward.account import measure_kept, predict_kept, total
from edgewright.backward.base import Rule, swapped
from edgewright.backward.exact import Exact
from edgewright.backward.rules.gradient_filter import GradientFilter
from edgewright.backward.rules.tune_mode import Tuned, TuneMode, tune_mode
from edgewright.backward.rules.walsh import Walsh
from edgewright.backward.survey import survey
from edgewright.core.errors import BadInput

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
PAIRS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (3, 4, 11)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(1, 2)), (3, 4, 9, 8)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2), (3, 4, 5, 4, 3)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (3, 4, 9, 8)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding="same"), (3, 4, 9, 8)),
    "dilation": (lambda: nn.Conv2d(4, 6, 3, dilation=2), (3, 4, 9, 8)),
    "no bias": (lambda: nn.Conv2d(4, 6, 3, bias=False), (3, 4, 9, 8)),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def frozen(model: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics, scales and shifts as after training."""
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.3, 2.0)
            if layer.affine:
                nn.init.normal_(layer.weight, 1.0, 0.3)
                nn.init.normal_(layer.bias)
    return model.eval()


def tuned(model: nn.Module, x: Tensor, inner: Rule | None = None) -> Tuned:
    return tune_mode(survey(model, x), model, inner or Exact())


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, then the gradients of the input and of every parameter that learns."""
    x = x.detach().requires_grad_()
    output = model(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    learns = [p for p in model.parameters() if p.requires_grad]
    return [output, *torch.autograd.grad((output * weights).sum(), [x, *learns])]


@pytest.mark.parametrize("dtype, near", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("pair", PAIRS)
def test_outputs_and_gradients_are_those_of_evaluation_mode(
    pair: str, affine: bool, dtype: torch.dtype, near: float
) -> None:
    make, shape = PAIRS[pair]
    conv = make()
    norm = NORMS[len(shape) - 2](conv.out_channels, affine=affine)  # pyright: ignore[reportArgumentType]
    model, x = frozen(nn.Sequential(conv, norm, nn.ReLU(inplace=True))).to(dtype), torch.randn(shape, dtype=dtype)
    wanted = gradients(model, x)
    rules = tuned(model, x).rules
    assert set(rules) == {"0", "1"}
    with swapped(model, rules):
        found = gradients(model, x)
        with torch.no_grad():
            torch.testing.assert_close(model(x), wanted[0], rtol=near, atol=near)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=near, atol=near * float(theirs.detach().abs().max()))


def test_parts_that_do_not_learn() -> None:
    model, x = frozen(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))).double(), torch.randn(3, 4, 9, 8).double()
    for still in (["0.weight"], ["1.weight"], ["0.weight", "1.weight"], ["0.weight", "0.bias", "1.weight"]):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in still)
        wanted = gradients(model, x)
        with swapped(model, tuned(model, x).rules):
            for ours, theirs in zip(gradients(model, x), wanted, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    model.requires_grad_(False)
    with swapped(model, tuned(model, x).rules):
        assert measure_kept(model, x) == ()


def chain(layers: int = 4) -> tuple[nn.Module, Tensor]:
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)]
    return frozen(nn.Sequential(*parts)), torch.randn(4, 8, 14, 15)


def test_a_chain_keeps_less_than_evaluation_mode_and_as_predicted() -> None:
    model, x = chain()
    before = total(measure_kept(model, x))
    rules = tuned(model, x).rules
    sites = {site.name: site for site in survey(model, x)}
    with swapped(model, rules):
        kept = measure_kept(model, x)
        assert kept == predict_kept(model, x)
    assert total(kept) < 0.6 * before
    for name in ("2", "4", "6"):  # the input of the first needs no gradient
        (call,) = sites[name].calls
        seen = sum(one.bytes for one in kept if one.layer == name)
        assert seen == rules[name].stored_bytes(call, (True, True, False))
    assert rules["3"].stored_bytes(sites["3"].calls[0], (True, True, True, False, False)) == 0


def test_steps_of_training_give_the_weights_of_evaluation_mode() -> None:
    model, x = chain()
    model.double()
    x, twin = x.double(), copy.deepcopy(model)

    def train(net: nn.Module) -> None:
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
        for _ in range(6):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()

    start = model.state_dict()["0.weight"].clone()
    train(model)
    with swapped(twin, tuned(twin, x).rules):
        train(twin)
    assert not torch.allclose(start, model.state_dict()["0.weight"])
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], tensor, rtol=1e-10, atol=1e-10)


def test_where_c_is_small_deploy_mode_diverges_at_a_rate_at_which_tune_mode_is_stable() -> None:
    """A step on w moves w' by c^2 times what the same step on w' does: with c = 1/30, 900 times less."""
    conv, norm = nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6, eps=0.0)
    model = nn.Sequential(conv, norm).eval()
    assert norm.running_var is not None
    norm.running_var.fill_(4.0)
    norm.running_var[0] = 900.0
    model.requires_grad_(False)
    conv.weight.requires_grad_(True)
    x, goal = torch.randn(8, 4, 6, 5), torch.randn(8, 6, 6, 5)
    deployed = copy.deepcopy(conv)
    with torch.no_grad():
        deployed.weight.mul_(torch.rsqrt(norm.running_var).view(-1, 1, 1, 1))

    def losses(net: nn.Module) -> list[float]:
        optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=2.0)
        found = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = functional.mse_loss(net(x), goal, reduction="sum") / 240
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
        return found

    deploy, plain = losses(deployed), losses(copy.deepcopy(model))
    with swapped(model, tuned(model, x).rules):
        tune = losses(model)
    assert tune == pytest.approx(plain, rel=1e-4)
    assert tune[-1] < tune[0] and not deploy[-1] < 1e6


def test_a_copy_made_inside_has_its_own_norm() -> None:
    model, x = chain(2)
    model, x = model.double(), x.double()
    with swapped(model, tuned(model, x).rules):
        twin = copy.deepcopy(model)
    rule = twin.get_submodule("0").__dict__["_backward_rule"]
    assert isinstance(rule, TuneMode) and rule.norm is twin.get_submodule("1")
    with torch.no_grad():
        twin.get_submodule("1").get_parameter("weight").mul_(2.0)
    plain = chain(2)[0].double()
    plain.load_state_dict(twin.state_dict())
    for ours, theirs in zip(gradients(twin, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rule, kernel, share", [(Walsh(4), 1, 10 / 64), (GradientFilter(4), 3, 1 / 16)])
def test_it_composes_with_another_rule_for_the_convolution(rule: Rule, kernel: int, share: float) -> None:
    """The gradients are those that the rule gives for the fused convolution, led back by the chain rule."""
    conv, norm = nn.Conv2d(5, 7, kernel, padding=kernel // 2), nn.BatchNorm2d(7)
    model, x = frozen(nn.Sequential(conv, norm)), torch.randn(2, 5, 32, 16)
    with swapped(model, tuned(model, x, rule).rules):
        output, gx, gw, gb, g_scale, g_shift = gradients(model, x)
        kept = total(measure_kept(model, x))
        assert predict_kept(model, x) == measure_kept(model, x)
    fused = nn.utils.fuse_conv_bn_eval(conv, norm)
    with swapped(nn.Sequential(fused), {"0": rule}):
        wanted, fx, fw, fb = gradients(fused.requires_grad_(), x)
    assert norm.running_mean is not None and norm.running_var is not None and conv.bias is not None
    c = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    from_weight = (fw * conv.weight).sum((1, 2, 3)) + fb * (conv.bias - norm.running_mean)
    for ours, theirs in (
        (output, wanted),
        (gx, fx),
        (gw, fw * c.view(-1, 1, 1, 1)),
        (gb, fb * c),
        (g_shift, fb),
        (g_scale, from_weight * c / norm.weight),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert kept < x.numel() * 4 * share + conv.weight.numel() * 4 + 200  # and w', and vectors


def test_a_whole_network_with_checkpoints_autocast_and_training_mode() -> None:
    model, x = odd()
    wanted = gradients(model, x)
    decided = tuned(model, x)
    assert set(decided.rules) == {"stem", "norm", "depthwise", "norm2"} and not decided.left
    with swapped(model, decided.rules):
        for ours, theirs in zip(gradients(model, x), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert predict_kept(model, x) == measure_kept(model, x)
        assert model.norm.num_batches_tracked is not None
        before = model.norm.num_batches_tracked.clone()
        model.train()
        torch.testing.assert_close(model(x), wanted[0], rtol=1e-4, atol=1e-5)
        assert torch.equal(before, model.norm.num_batches_tracked)
        model.eval()
        source = x.clone().requires_grad_()
        output = checkpoint(model, source, use_reentrant=False)
        assert isinstance(output, Tensor)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        for ours, theirs in zip([source, *model.parameters()], wanted[1:], strict=True):
            assert ours.grad is not None
            torch.testing.assert_close(ours.grad, theirs, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        plain = gradients(model, x)
        with swapped(model, decided.rules):
            for ours, theirs in zip(gradients(model, x), plain, strict=True):
                assert ours.dtype == theirs.dtype
                assert functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.98


class Corners(nn.Module):
    """Pairs that must be left alone, each for another reason."""

    def __init__(self) -> None:
        super().__init__()
        self.fit, self.fit_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.read_twice, self.read_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.shared, self.norm_a, self.norm_b = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.one, self.two, self.shared_norm = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.trains, self.trains_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.free, self.free_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        self.given, self.given_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.lonely = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.fit_norm(self.fit(x))
        y = self.read_twice(x)
        x = self.read_norm(y) + y
        x = self.norm_a(self.shared(x)) + self.norm_b(self.shared(x))
        x = self.shared_norm(self.one(x)) + self.shared_norm(self.two(x))
        x = self.free_norm(self.free(self.trains_norm(self.trains(x))))
        feature = self.given(x)
        return {"feature": feature, "end": self.lonely(functional.relu(self.given_norm(feature)))}


def test_what_must_be_left_alone_is_and_is_named() -> None:
    model, x = Corners().eval(), torch.randn(2, 3, 6, 5)
    model.trains_norm.train()
    decided = tuned(model, x)
    assert set(decided.rules) == {"fit", "fit_norm"}
    assert set(decided.left) == {
        "read_norm", "norm_a", "norm_b", "shared_norm", "trains_norm", "free_norm", "given_norm", "lonely",
    }  # fmt: skip
    assert "training mode" in decided.left["trains_norm"] and "2 times" in decided.left["shared_norm"]
    assert "running statistics" in decided.left["free_norm"] and "not alone" in decided.left["read_norm"]
    model.trains_norm.eval()
    wanted = model(x)
    with swapped(model, decided.rules):
        for name, found in model(x).items():
            torch.testing.assert_close(found, wanted[name], rtol=1e-4, atol=1e-5)


def test_rules_by_name_and_rules_that_refuse() -> None:
    model, x = chain(2)
    sites = survey(model, x)
    some = tune_mode(sites, model, {"2": Exact("bias")})
    assert set(some.rules) == {"2", "3"} and some.left == {"1": "no rule was given for the convolution '0'"}
    assert some.rules["2"].trained(model.get_submodule("2")) == ("bias",)
    none = tune_mode(sites, model, Walsh(4))
    assert not none.rules and "1x1" in none.left["1"] and "gradient filtering" in none.left["3"]
    with pytest.raises(BadInput, match="'1', which is no convolution"):
        tune_mode(sites, model, {"1": Exact()})


def test_an_activation_inside_the_norm_stays() -> None:
    class NormAct(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return functional.relu(super().forward(input))

    model, x = frozen(nn.Sequential(nn.Conv2d(3, 5, 3), NormAct(5))), torch.randn(2, 3, 7, 6)
    wanted = gradients(model, x)
    with swapped(model, tuned(model, x).rules):
        for ours, theirs in zip(gradients(model, x), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
