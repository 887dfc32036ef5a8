"""Layers compared between two networks that read the same: truth by hand, counts of passes, and who is at fault."""

from typing import Literal

import pytest
import torch
from torch import nn

from compress.networks import images, lived_in, mobile
from edgewright.compress import base
from edgewright.compress.base import Plan, Rewrite, Saving, Totals, apply
from edgewright.compress.planner import plan
from edgewright.compress.rewrites.fold_batch_norm import Fold
from edgewright.compress.watch import AT_ONCE, forced, given, portions, recorded
from edgewright.core.errors import GateFailed


class Off(Fold):
    """A folding that gets one shift wrong by `by`."""

    by: float = 0.0

    def carry_out(self, model: nn.Module) -> None:
        super().carry_out(model)
        model.get_submodule(self.layers[0]).bias.data[0] += self.by  # pyright: ignore


class Meddles(Rewrite):
    """A rewrite whose own layer is as it was, and another one, out of its sight, is not."""

    kind: Literal["meddles"] = "meddles"
    saves: Saving = Saving(operators=1)
    other: str = ""

    def carry_out(self, model: nn.Module) -> None:
        if self.other:
            model.get_submodule(self.other).weight.data.mul_(1.5)  # pyright: ignore


@torch.no_grad()
def test_many_rewrites_take_three_passes_a_kind() -> None:
    network, x = lived_in(mobile()), images(2, 3, 18, 13)
    network = nn.Sequential(network, nn.Dropout(), nn.Linear(10, 4))
    found, seen = plan(network, x), []
    network.get_submodule("0.stem").register_forward_hook(
        lambda *_: seen.append(1)
    )  # a copy has the hook and this list too
    apply(network, found, x)
    assert {rewrite.kind for rewrite in found.rewrites} == {"remove_identity", "fold_batch_norm"}
    assert len(found.rewrites) > 10
    assert len(seen) == 2 * 3


@pytest.mark.parametrize("at", [0, 4, -1])
def test_of_many_the_one_that_is_off_is_named(at: int) -> None:
    network, x = lived_in(mobile()), images(2, 3, 18, 13)
    found = plan(network, x)
    rewrites = list(found.rewrites)
    rewrites[at] = Off(**{**dict(rewrites[at]), "by": 0.1})
    number, layers = at % len(rewrites) + 1, ", ".join(rewrites[at].layers)
    wrong = Plan(**{**dict(found), "rewrites": tuple(rewrites)})
    with pytest.raises(GateFailed, match=f"rewrite {number}, fold_batch_norm of {layers}: {rewrites[at].layers[-1]} "):
        apply(network, wrong, x)


def test_an_error_is_not_handed_on_to_the_next_rewrite() -> None:
    """Two that are off: the first is named; the second, forced to read what was there before, by its own error only."""
    network, x = lived_in(mobile()), images(1, 3, 18, 13)
    folds = plan(network, x).rewrites
    after = base.rebuilt(network, Plan(input_shape=x.shape, rewrites=folds, before=Totals(), after=Totals()))
    first, third = folds[0].layers, folds[2].layers
    for (layer, _), by in ((first, 5.0), (third, 0.25)):
        after.get_submodule(layer).bias.data[1] += by  # pyright: ignore
    watched = [rewrite.layers[-1] for rewrite in folds]
    seen, _ = recorded(network, watched, x)
    off = forced(after, seen, x)
    assert off is not None
    differences = {name: worst for name, worst, _ in off}
    assert differences.pop(first[1]) == pytest.approx(5.0, rel=1e-4)
    assert differences.pop(third[1]) == pytest.approx(0.25, rel=1e-4)
    assert max(differences.values()) < 1e-4


def test_what_a_rewrite_does_out_of_its_sight_is_found_and_named() -> None:
    network, x = lived_in(mobile()), images(2, 3, 18, 13)
    quiet = [Meddles(layers=(name,)) for name in ("stem.0", "stage1.0", "stage2.1")]
    quiet[1] = Meddles(layers=("stage1.0",), other="head.0.0")
    wrong = Plan(input_shape=x.shape, rewrites=tuple(quiet), before=Totals(), after=Totals())
    with pytest.raises(GateFailed, match=r"rewrite 2, meddles of stage1\.0: the network is off by"):
        apply(network, wrong, x)


def test_every_sample_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that only the last of many samples shows, in batches of two."""
    monkeypatch.setattr("edgewright.compress.watch.AT_ONCE", 2 * 3 * 5 * 4)
    network = lived_in(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    found = plan(network, torch.zeros(1, 3, 5, 4))
    broken = Meddles(layers=("0",), other="0", tolerance=1e-4)
    x = torch.zeros(7, 3, 5, 4)
    wrong = Plan(**{**dict(found), "rewrites": (broken,)})
    apply(network, wrong, x)  # zeros do not show it
    x[-1] = images(3, 5, 4)
    with pytest.raises(GateFailed, match="rewrite 1, meddles of 0: 0 is off by"):
        apply(network, wrong, x)


def test_portions() -> None:
    assert [len(part) for part in portions(torch.zeros(11, 3, 5, 4), (1, 3, 5, 4))] == [11]
    big = torch.zeros(1, 3, 400, 400).expand(5, 3, 400, 400)
    assert [len(part) for part in portions(big, (1, 3, 400, 400))] == [1] * 5
    assert [len(part) for part in portions(big, (2, 3, 400, 400))] == [2, 2, 1]
    assert AT_ONCE // (3 * 224 * 224) == 4


def test_layers_of_other_shapes_or_calls_are_not_compared() -> None:
    one, x = lived_in(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))), images(2, 3, 6, 5)
    seen, output = recorded(one, ["0", "1"], x)
    assert (seen["0"][0] < 0).any(), "kept as it was before the activation worked in place"
    torch.testing.assert_close(seen["1"][0], output)
    assert forced(lived_in(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())), seen, x) is None
    found = forced(one, seen, x)
    assert found is not None
    assert [(name, worst) for name, worst, _ in found] == [("0", 0), ("1", 0)]
    assert forced(nn.Sequential(one, nn.Identity()), {"0": [], "1": []}, x) is None
    assert torch.equal(given(nn.Sequential(one, nn.Identity()), "0", x)[0], output)
