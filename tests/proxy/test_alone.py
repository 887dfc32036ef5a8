"""Images that go alone: one pass of each, whoever asks, in whatever order."""

import gc

import pytest
import torch
from torch import nn

from edgewright.proxy.alone import Alone
from edgewright.proxy.base import score
from edgewright.proxy.scores.gradsign import gradsign
from edgewright.proxy.scores.knas import knas
from edgewright.proxy.scores.synflow import synflow


def network() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(6, 10))


def scored(*proxies) -> tuple[dict[str, float], list[int]]:
    """The scores of 7 images, and how many images each forward pass had."""
    model, sizes = network(), []
    next(model.children()).register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    images = torch.randn(7, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    return score(model, [(images, torch.arange(7))], proxies), sizes


@pytest.mark.parametrize("turned", [False, True])
def test_both_compatible_forms_share_the_pass_of_every_image(turned):
    # KNAS looks at two equal halves, six of the seven images; GradSign at all of them.
    proxies = [knas(compat=True), gradsign(compat=True)]
    together, sizes = scored(*(proxies[::-1] if turned else proxies))
    assert sizes == [1] * 7
    separate = [scored(proxy) for proxy in proxies]
    assert [len(sizes) for _, sizes in separate] == [6, 7]
    assert together == {**separate[0][0], **separate[1][0]}


def test_the_batch_is_free_when_it_was_scored():
    gc.disable()  # what is only freed by a collection fills the memory while thousands of networks are scored
    try:
        scored(knas(compat=True), gradsign(compat=True))
        assert not [one for one in gc.get_objects() if isinstance(one, Alone)]
    finally:
        gc.enable()


class OnlyWide(nn.Module):
    """A network with an error of its own, which is no batch norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) < 2:
            raise ValueError("needs two images")
        return self.head(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize("proxy", [knas(compat=True), gradsign(compat=True), synflow()])
def test_an_error_of_the_networks_own_is_not_taken_for_a_score(proxy):
    with pytest.raises(ValueError, match="needs two images"):
        score(OnlyWide(), [(torch.randn(5, 3, 9, 11), torch.arange(5))], [proxy])
