"""Networks as a stem and a head, and several inputs joined into one map."""

import pytest
import torch
from torch import Tensor, nn

from edgewright.core.tensors import TensorSpec, ask
from edgewright.model.heads.pool import PoolHead
from edgewright.model.network import SPREAD, Front, Network, with_head

SPECS = (
    TensorSpec(name="rgb", shape=(3, 9, 7)),
    TensorSpec(name="tilt", shape=(5,)),
    TensorSpec(name="depth", shape=(1, 9, 7)),
)


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {spec.name: torch.randn(2, *map(int, spec.shape), generator=generator) for spec in SPECS}  # type: ignore[arg-type]


class Add(nn.Module):
    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, x: Tensor) -> Tensor:
        return x + self.amount


class Sides(nn.Module):
    """A head that gives what it read, by name."""

    def forward(self, deep: Tensor, shallow: Tensor) -> dict[str, Tensor]:
        return {"deep": deep, "shallow": shallow}


def test_inputs_lie_one_after_the_other_and_vectors_everywhere() -> None:
    front, given = Front(SPECS), inputs()
    joined = front(*given.values())
    assert joined.shape == (2, 3 + SPREAD + 1, 9, 7)
    assert torch.equal(joined[:, :3], given["rgb"])
    assert torch.equal(joined[:, -1:], given["depth"])
    spread = front.get_submodule("of_tilt")(given["tilt"])
    assert torch.equal(joined[:, 3 : 3 + SPREAD], spread[:, :, None, None].expand(2, SPREAD, 9, 7))


def test_the_head_gets_what_it_reads_in_its_order() -> None:
    parts = {"a": Add(1), "b": Add(10), "c": Add(100)}
    network, x = Network(parts, Sides(), ("c", "a")), torch.zeros(1, 2, 3, 3)
    found = network(x)
    assert {name: float(y.max()) for name, y in found.items()} == {"deep": 111, "shallow": 1}


def test_by_name_and_by_position_agree() -> None:
    torch.manual_seed(0)
    parts, given = {"stem": nn.Conv2d(3 + SPREAD + 1, 4, 3)}, inputs()
    network = Network(parts, nn.Flatten(), ("stem",), Front(SPECS))
    by_name = ask(network, given)
    assert torch.equal(network(*given.values()), by_name)
    assert torch.equal(network(**dict(reversed(given.items()))), by_name)
    with pytest.raises(KeyError, match="depth"):
        network(rgb=given["rgb"], tilt=given["tilt"])
    alone = with_head({"stem": nn.Conv2d(3, 4, 3)}, PoolHead(5), 4)
    assert torch.equal(alone(input=given["rgb"]), alone(given["rgb"]))
    assert alone(given["rgb"]).shape == (2, 5)


def test_weights_are_called_as_their_places() -> None:
    network = with_head({"stem": nn.Conv2d(3, 4, 3), "stage1": nn.Sequential(nn.Conv2d(4, 8, 1))}, PoolHead(5), 8, 16)
    names = {name.rpartition(".")[0] for name in network.state_dict()}
    assert names == {"stem", "stage1.0", "head.0.0", "head.0.1", "head.3"}
    assert [name for name, _ in network.named_children()] == ["stem", "stage1", "head"]
    same = with_head({"stem": nn.Conv2d(3, 4, 3), "stage1": nn.Sequential(nn.Conv2d(4, 8, 1))}, PoolHead(5, 0.3), 8, 16)
    assert same.state_dict().keys() == network.state_dict().keys()


def test_several_inputs_go_through_torch_export() -> None:
    """What is exported takes the inputs by position, in their order."""
    given = inputs()
    network = Network({"stem": nn.Conv2d(3 + SPREAD + 1, 4, 3)}, nn.Flatten(), ("stem",), Front(SPECS)).eval()
    program = torch.export.export(network, tuple(given.values()))
    torch.testing.assert_close(program.module()(*given.values()), network(**given))
