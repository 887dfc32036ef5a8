"""Networks of several inputs and outputs, scored as if they had one of each."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgewright.proxy.base import score
from edgewright.proxy.resolve import resolve_proxies
from edgewright.proxy.trees import EndToEnd, end_to_end, joined, parted

NAMES = ("params", "macs", "zico", "snip", "grad_norm", "synflow")


class Two(nn.Module):
    """Two inputs, two outputs; the second says what the first says, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(2, 4, 3, 2, 1)
        self.vector = nn.Linear(5, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, image: Tensor, tilt: Tensor) -> dict[str, Tensor]:
        y = self.last(self.map(image).relu().mean((2, 3)) + self.vector(tilt))
        return {"kind": y, "side": 2 * y[:, :2]}


def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(outputs["kind"], targets["kind"]) + F.cross_entropy(outputs["side"], targets["side"])


def test_a_tree_comes_apart_as_it_was_joined() -> None:
    tree = {"a": torch.rand(3, 2, 4), "b": torch.rand(3, 5)}
    flat = joined(tree)
    assert flat.shape == (3, 13)
    apart = parted(flat, {"a": (2, 4), "b": (5,)})
    assert all(torch.equal(apart[name], tree[name]) for name in tree)


def test_one_input_and_one_output_are_left_alone() -> None:
    network, batches = nn.Linear(2, 2), [(torch.rand(4, 2), torch.tensor([0, 1, 1, 0]))]
    assert end_to_end(network, batches, F.cross_entropy) == (network, batches, F.cross_entropy)


def test_gradients_are_those_of_the_network_itself() -> None:
    """SNIP by hand, from the plain network and its own loss."""
    torch.manual_seed(0)
    network = Two()
    batches = [
        (
            {"image": torch.rand(6, 2, 9, 7), "tilt": torch.rand(6, 5)},
            {"kind": torch.arange(6) % 3, "side": torch.arange(6) % 2},
        )
        for _ in range(2)
    ]
    whole, flat, judged = end_to_end(network, batches, loss)
    found = score(whole, flat, resolve_proxies(NAMES), loss=judged)
    by_hand = []
    for inputs, targets in batches:
        network.zero_grad()
        loss(network(**inputs), targets).backward()
        weights = [network.map.weight, network.vector.weight, network.last.weight]
        by_hand.append(sum(float((w * w.grad).detach().abs().sum()) for w in weights))
    assert found["snip"] == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)
    assert found["params"] == sum(p.numel() for p in network.parameters())
    assert all(torch.tensor(value).isfinite() for value in found.values())


@pytest.mark.parametrize("name", ["", "image"])
def test_one_input_laid_flat_scores_as_it_does_in_its_own_shape(name: str) -> None:
    """Scores of gradients read weights, which do not see how the inputs lay."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, 2), nn.ReLU(),
                            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))  # fmt: skip
    batches = [(torch.randn(8, 2, 9, 7), torch.arange(8) % 3) for _ in range(2)]
    named = network if not name else ByName(network)
    whole = EndToEnd(named, {name: (2, 9, 7)})
    names = ("params", "macs", "grad_norm", "snip", "zico", "plain", "grasp", "knas")
    plain = score(network, batches, resolve_proxies(names))
    flat = score(whole, [(x.flatten(1), y) for x, y in batches], resolve_proxies(names))
    assert flat == pytest.approx(plain, rel=1e-4)
    assert whole.given == {"": (3,)}


class ByName(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)
