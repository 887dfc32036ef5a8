"""Channels that count for nothing, removed, change nothing; and the rest is as if it had been sliced by hand."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.networks import images, lived_in
from compress.prunable import Residual, networks, resnet
from edgewright.compress.base import Plan, apply, rebuilt
from edgewright.compress.planner import plan, read_folder, read_plan, write_folder
from edgewright.compress.prune.groups import Dependencies, dependencies
from edgewright.compress.rewrites.prune_channels import find
from edgewright.compress.wiring import trace
from edgewright.core.errors import BadInput
from edgewright.core.seed import rng

NAMES = list(networks())


def chosen(found: Dependencies, seed: int) -> dict[str, list[int]]:
    """Some units of every group."""
    random = rng(seed, "units")
    return {
        group.name: sorted(random.sample(range(group.units), random.randint(1, group.units))) for group in found.groups
    }


def silenced(model: nn.Module, found: Dependencies, keep: dict[str, list[int]]) -> None:
    """Whatever reads a unit that is not kept reads nothing of it."""
    tensors = dict(model.named_parameters())
    for group in found.groups:
        gone = sorted(set(range(group.units)) - set(keep.get(group.name, range(group.units))))
        for member in group.members:
            if member.role == "reads":
                tensors[member.tensor].data.index_fill_(member.dim, torch.tensor(member.index[gone].ravel()).long(), 0)


def made(name: str, seed: int) -> tuple[nn.Module, torch.Tensor, Plan, Dependencies, dict[str, list[int]]]:
    model, shape = networks()[name]
    model = model.double()
    x = images(*shape, dtype=torch.float64)
    found = dependencies(model, trace(model, x))
    keep = chosen(found, seed)
    return model, x, plan(model, x, [partial(find, keep=keep)]), found, keep


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_units_that_count_for_nothing_change_nothing(name: str, seed: int) -> None:
    model, x, found, groups, keep = made(name, seed)
    silenced(model, groups, keep)
    result = apply(model, found, x)
    torch.testing.assert_close(result(x), model(x), rtol=1e-9, atol=1e-10)
    again = images(5, *x.shape[1:], seed=4, dtype=torch.float64)  # another batch
    torch.testing.assert_close(result(again), model(again), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_saves_what_it_says_and_comes_back_from_a_folder(name: str, tmp_path: Path) -> None:
    model, x, found, groups, keep = made(name, 3)
    assert groups.macs(groups.full) == found.before.macs
    left = [len(keep[group.name]) for group in groups.groups]
    assert groups.macs(left) == found.after.macs
    for field in ("params", "macs", "bytes", "operators"):
        assert getattr(found.before, field) - getattr(found.after, field) == getattr(found.saves, field), field
    result = apply(model, found, x)
    assert found.after.params == sum(parameter.numel() for parameter in result.parameters())
    assert found.trains
    again = read_plan(json.loads(found.to_json()), "plan")
    assert again == found
    write_folder(tmp_path, result, found)
    fresh, _ = read_folder(tmp_path, networks()[name][0].double())
    with torch.no_grad():
        assert torch.equal(fresh(x), result(x))
    rebuilt(networks()[name][0].double(), again).train()(x).sum().backward()  # and it learns


@torch.no_grad()
def test_a_layer_is_sliced_as_by_hand() -> None:
    before: Any = lived_in(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    x = images(2, 3, 5, 7)
    found = plan(before, x, [partial(find, keep={"0": [1, 4, 5]})])
    result: Any = apply(before, found, x)
    rows = [1, 4, 5]
    assert torch.equal(result[0].weight, before[0].weight[rows])
    assert torch.equal(result[0].bias, before[0].bias[rows])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(result[1], name), getattr(before[1], name)[rows])
    assert torch.equal(result[3].weight, before[3].weight[:, rows])
    assert [result[0].out_channels, result[1].num_features, result[3].in_channels] == [3, 3, 3]


def test_which_channels_hang_together() -> None:
    model = resnet()
    found = dependencies(model, trace(model, torch.zeros(2, 3, 9, 12)))
    makers = {
        group.name: [member.tensor for member in group.members if member.role == "makes"] for group in found.groups
    }
    assert makers["0"] == ["0.weight", "3.conv2.weight", "4.conv2.weight"]  # the first stage's stream
    assert makers["5.conv2"] == ["5.conv2.weight", "5.down.0.weight", "6.conv2.weight"]
    assert makers["3.conv1"] == ["3.conv1.weight"]
    assert len(found.groups) == 6
    vit, shape = networks()["transformer"]
    heads = dependencies(vit, trace(vit, torch.zeros(shape)))
    assert [(g.name, g.units, g.per_unit, g.heads) for g in heads.groups] == [
        ("blocks.0.attn.qkv", 3, 12, True), ("blocks.0.fc1", 24, 1, False),
        ("blocks.1.attn.qkv", 5, 18, True), ("blocks.1.fc1", 16, 1, False),
    ]  # fmt: skip
    assert all("patch" not in group.name for group in heads.groups)  # the embedding is normed over


class _Odd(nn.Module):
    """What cannot be followed: a sort, channels picked and padded, a layer used twice, shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.d, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.sort(self.a(x), 1).values
        y = self.c(self.c(self.b(y)))
        return self.last(torch.nn.functional.pad(self.d(y)[:, 2:], (0, 0, 0, 0, 1, 1)))


def test_what_cannot_be_followed_is_named_and_stays() -> None:
    model = _Odd()
    found = dependencies(model, trace(model, torch.zeros(1, 3, 4, 5)))
    reasons = {layer: one.why for one in found.declined for layer in one.layers}
    assert "sort" in reasons["a"]
    assert "picked" in reasons["d"]
    (group,) = found.groups  # b's outputs are c's inputs, and so are c's own: one stream
    places = [(member.tensor, member.dim) for member in group.members if "weight" in member.tensor]
    assert places == [("b.weight", 0), ("c.weight", 1), ("c.weight", 0), ("d.weight", 1)]


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ({"9": [0]}, "makes no channels"),
        ({"0": []}, "must stay"),
        ({"0": [0, 99]}, "must stay"),
        ({"0": [1, 1]}, "once"),
    ],
)
def test_faults_are_one_sentence(keep: dict[str, list[int]], words: str) -> None:
    model = resnet()
    with pytest.raises(BadInput, match=words):
        plan(model, torch.zeros(2, 3, 9, 12), [partial(find, keep=keep)])


def test_another_networks_plan_is_refused() -> None:
    found = plan(resnet(), torch.zeros(2, 3, 9, 12), [partial(find, keep={"3.conv1": list(range(12, 24))})])
    other = nn.Sequential(*list(resnet().children())[:3], Residual(16, 8, 16), *list(resnet().children())[4:])
    with pytest.raises(BadInput, match="cannot be carried out"):
        apply(other, found, torch.zeros(2, 3, 9, 12))
