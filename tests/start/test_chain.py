"""A network as a chain: what is cut is what was there, and the parts together compute what the network did."""

import pytest
import torch
from tests.start.networks import Residual, living
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.start.chain import chain


def test_parts_one_after_the_other_are_the_network() -> None:
    model = living(Residual())
    links = chain(model, (3, 33, 20))
    x = torch.randn(2, 3, 33, 20)
    y = x
    for index in range(len(links.parts)):
        y = links.module(index)(y)
        assert y.shape[1:] == links.parts[index].shape
    assert torch.equal(model.classifier(model.pool(y).flatten(1)), model(x))


def test_blocks_are_parts_and_only_those_that_add_their_input_can_go() -> None:
    links = chain(Residual(), (3, 32, 32))
    assert [part.name for part in links.parts] == ["stem", *(f"blocks_{index}" for index in range(6))]
    assert [part.residual for part in links.parts] == [False, True, True, False, True, False, True]


def test_parts_share_the_networks_modules_and_its_mode_stays() -> None:
    model = Residual().train()
    links = chain(model, (3, 32, 32))
    assert model.training
    assert model.blocks.training
    assert links.module(1).get_submodule("blocks.0.conv1") is model.get_submodule("blocks.0.conv1")


class Dense(nn.Module):
    """Two maps are alive between its layers, so that it is one part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.cat((x, self.first(x)), 1))


def test_where_two_maps_are_alive_nothing_is_cut() -> None:
    links = chain(Dense(), (3, 16, 16))
    assert [part.shape for part in links.parts] == [(5, 16, 16)]


class Asking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if x.sum() > 0 else -x)


class Placed(nn.Module):
    """Learned places for one size of the map, as transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.places = nn.Conv2d(3, 4, 1), nn.Parameter(torch.zeros(1, 4, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.places


def test_what_an_operator_says_is_told_and_not_how_it_was_run() -> None:
    with pytest.raises(BadInput, match=r"operator by operator \(The size of tensor a \(16\)"):
        chain(Placed(), (3, 16, 16))
    assert chain(Placed(), (3, 8, 8)).parts


def test_a_network_that_cannot_be_followed_is_refused_in_words() -> None:
    with pytest.raises(BadInput, match="cannot be followed operator by operator"):
        chain(Asking(), (3, 16, 16))
    with pytest.raises(BadInput, match="no place where one map alone is alive"):
        chain(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 2, 2))
