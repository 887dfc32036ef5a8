"""Blocks and the network on their own; that they compute what the space counts is tested in the space room."""

import pytest
import torch
from torch import nn

from edgewright.model.blocks import Block, ConvNorm, SqueezeExcite, Stage, squeezed
from edgewright.model.network import Network
from made_network import mobile_net

STAGES = (
    Stage(kind="basic", depth=2, width=16, kernel=3, expansion=1, squeeze=False, stride=1),
    Stage(kind="inverted", depth=1, width=24, kernel=5, expansion=3, squeeze=True, stride=2),
)


def network(head_width: int = 32, dropout: float = 0.0) -> Network:
    return mobile_net(3, 5, 8, 1, STAGES, head_width, dropout)


def test_a_gate_of_zeros_halves_and_a_wide_open_one_keeps():
    gate = SqueezeExcite(16)
    x = torch.randn(2, 16, 5, 3)
    for bias, share in ((0.0, 0.5), (3.0, 1.0), (-3.0, 0.0)):
        nn.init.zeros_(gate.gate[3].weight)
        nn.init.constant_(gate.gate[3].bias, bias)
        torch.testing.assert_close(gate(x), share * x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "inside"), [(8, 8), (32, 8), (40, 8), (64, 16), (96, 24), (3072, 768)])
def test_gates_squeeze_to_a_quarter(width, inside):
    assert squeezed(width) == inside


def test_a_residual_of_a_silent_branch_keeps_its_input():
    x = torch.randn(2, 16, 7, 5)
    for kind, expansion, expected in (
        ("inverted", 4, x),
        ("fused", 2, x),
        ("basic", 1, x.relu()),
        ("fused", 1, x.relu()),
    ):
        block = Block(16, 16, kind=kind, kernel=3, expansion=expansion, squeeze=False, stride=1).eval()
        last = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
        nn.init.zeros_(last.weight)
        torch.testing.assert_close(block(x.clone()), expected, rtol=1e-4, atol=1e-5)


def test_first_weights_have_the_variance_of_their_fan_out():
    torch.manual_seed(0)
    weight = ConvNorm(64, 96, 5)[0].weight
    assert weight.std().item() == pytest.approx((2 / (96 * 25)) ** 0.5, rel=0.02)


def test_every_weight_has_a_gradient_before_training():
    torch.manual_seed(0)
    model = network().train()
    model(torch.randn(8, 3, 9, 13)).logsumexp(1).sum().backward()
    silent = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not silent


def test_modules_have_the_names_of_the_blocks():
    model = network()
    x = torch.randn(2, 3, 9, 13)
    model.eval()
    y = x
    for name in ("stem", "stage1.0", "stage1.1", "stage2.0", "head"):
        y = model.get_submodule(name)(y)
    torch.testing.assert_close(y, model(x), rtol=1e-4, atol=1e-5)
    assert y.shape == (2, 5)


@pytest.mark.parametrize("head_width", [0, 32])
def test_dropout_acts_in_training_only_and_renames_nothing(head_width):
    torch.manual_seed(0)
    plain, dropped = network(head_width), network(head_width, dropout=0.5)
    dropped.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, 9, 13)
    torch.testing.assert_close(plain.eval()(x), dropped.eval()(x), rtol=1e-4, atol=1e-5)
    # The head alone: batch norm is kept in evaluation mode, so only dropout can differ.
    dropped.head[-2].train()
    assert not torch.equal(dropped(x), dropped(x))


def test_memory_layout_changes_nothing():
    torch.manual_seed(0)
    model, x = network().eval(), torch.randn(2, 3, 9, 13)
    expected = model(x)
    wide = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(wide(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)
