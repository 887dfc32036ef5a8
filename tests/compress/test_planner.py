"""Plans go to JSON and back; a folder of plan and weights gives the network back from a fresh one."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.networks import images, lived_in, mobile
from edgewright.compress.base import Plan, apply
from edgewright.compress.planner import plan, read_folder, read_plan, write_folder
from edgewright.compress.rewrites import depthshrinker
from edgewright.core.errors import BadInput


@pytest.fixture(scope="module")
def shrunk() -> tuple[nn.Module, nn.Module, Plan]:
    """A network, what came of it in two plans with (no) training between them, and both plans as one."""
    network, x = lived_in(mobile()), images(2, 3, 26, 18)
    first = plan(network, x, [partial(depthshrinker.find, drop=("stage2.0", "stage2.1"))])
    linear = apply(network, first, x)
    second = plan(linear, x)
    return network, apply(linear, second, x), first.then(second)


@torch.no_grad()
def test_a_folder_gives_the_network_back(shrunk: tuple[nn.Module, nn.Module, Plan], tmp_path: Path) -> None:
    _, small, found = shrunk
    write_folder(tmp_path, small, found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compress.json", "model.safetensors"]
    torch.manual_seed(99)  # other first weights
    again, same = read_folder(tmp_path, mobile())
    x = images(3, 3, 26, 18, seed=4)
    assert torch.equal(again(x), small(x))
    assert same == found
    assert str(same) == str(found)


def test_plans_add_up(shrunk: tuple[nn.Module, nn.Module, Plan]) -> None:
    network, small, found = shrunk
    assert found.trains
    counted = [sum(p.numel() for p in net.parameters()) for net in (network, small)]
    assert [found.before.params, found.after.params] == counted
    assert found.before.macs - found.after.macs == found.saves.macs > 0
    assert found.before.operators - found.after.operators == found.saves.operators


def test_a_damaged_plan_is_one_sentence(shrunk: tuple[nn.Module, nn.Module, Plan], tmp_path: Path) -> None:
    good = json.loads(shrunk[2].to_json())
    for change, sentence in (
        ({"rewrites": 3}, "not a plan"),
        ({"rewrites": [{"kind": "magic", "layers": ["stem"]}]}, "rewrite 1 is of unknown kind 'magic'"),
        ({"rewrites": [{"kind": "fold_batch_norm", "layer": ["stem"]}]}, "rewrite 1: unknown key 'layer'"),
        ({"surplus": 1}, "unknown key 'surplus'"),
    ):
        with pytest.raises(BadInput, match=sentence):
            read_plan({**good, **change}, "compress.json")
    with pytest.raises(BadInput, match="no such file"):
        read_folder(tmp_path, mobile())


def test_weights_of_another_network_are_refused(shrunk: tuple[nn.Module, nn.Module, Plan], tmp_path: Path) -> None:
    write_folder(tmp_path, mobile(), shrunk[2])
    with pytest.raises(BadInput, match=r"model\.safetensors: not the weights"):
        read_folder(tmp_path, mobile())
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BadInput, match=r"model\.safetensors: not a safetensors file"):
        read_folder(tmp_path, mobile())


def test_an_unknown_rewrite_is_named() -> None:
    with pytest.raises(BadInput, match="no rewrite is called 'shrink'; there are remove_identity"):
        plan(mobile(), torch.zeros(1, 3, 16, 12), ["shrink"])
