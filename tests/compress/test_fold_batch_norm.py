"""Folded networks against the ones they came from; what cannot be folded is named."""

import torch
from torch import nn

from compress.networks import ReadTwice, Shared, TimmInverted, images, lived_in, mobile
from edgewright.compress.base import apply
from edgewright.compress.planner import plan
from edgewright.compress.rewrites import fold_batch_norm
from edgewright.compress.wiring import trace

FOLD = ("fold_batch_norm",)


@torch.no_grad()
def test_folding_is_exact_for_every_kind_of_layer() -> None:
    network = lived_in(_kinds()).double()
    x = images(3, 3, 9, 11, dtype=torch.float64)
    found = plan(network, x, FOLD)
    folded = apply(network, found, x)
    assert len(found.rewrites) == 4
    torch.testing.assert_close(folded(x), network(x), rtol=0, atol=1e-10)
    assert not [module for module in folded.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _kinds() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6),
        nn.BatchNorm2d(6), nn.Flatten(2), nn.Conv1d(6, 4, 2), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(4 * 5, 7),
        nn.BatchNorm1d(7),
    )  # fmt: skip


def test_saving_is_counted_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 1, bias=False), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4))
    one, two = plan(network, torch.zeros(1, 3, 2, 3), FOLD).rewrites
    assert (one.saves.params, one.saves.bytes) == (10 - 5, 4 * (10 + 10 - 5) + 8)  # and the count of batches, int64
    assert (two.saves.params, two.saves.bytes) == (8, 4 * 16 + 8)
    assert one.saves.operators == 1


def test_the_network_itself_stays_and_flags_are_kept() -> None:
    network = lived_in(mobile())
    network.stem.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = images(1, 3, 14, 18)
    folded = apply(network, plan(network, x, FOLD), x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not folded.get_submodule("stem.0").weight.requires_grad
    assert folded.get_submodule("head.0.0").bias.requires_grad


def test_what_is_shared_or_read_twice_is_named() -> None:
    for model, channels, why in ((Shared(), 4, "conv is called 2 times"), (ReadTwice(), 3, "is read by 2 others")):
        found = fold_batch_norm.find(model, trace(model, torch.zeros(1, channels, 4, 5)))
        assert not found.rewrites
        assert [(one.layers, why in one.why) for one in found.declined] == [(("conv", "norm"), True)]


@torch.no_grad()
def test_an_activation_inside_a_norm_stays_in_its_place() -> None:
    network, x = lived_in(TimmInverted(4, 12)), images(2, 4, 5, 7)
    found = plan(network, x, FOLD)
    assert [(rewrite.layers[1], rewrite.remains) for rewrite in found.rewrites] == [
        ("bn1", ("act",)), ("bn2", ("act",)), ("bn3", ()),
    ]  # fmt: skip
    folded = apply(network, found, x)
    assert str(folded.bn1) == str(nn.Sequential(nn.ReLU6()))
    assert (folded(x) - network(x)).abs().max() < 1e-4
