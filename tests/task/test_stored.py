from pathlib import Path

import torch

from edgewright.task.base import Split
from edgewright.task.stored import read_splits, write_splits


def test_trees_come_back_as_they_were(tmp_path: Path) -> None:
    """One tensor alone and several by name, parts in order, strided tensors made whole."""
    image = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    parts = {
        "train": Split(image.permute(0, 1, 3, 2), torch.tensor([1, 0])),
        "val": Split({"image": image, "tilt": torch.rand(2, 7)}, {"a": torch.tensor([1, 2]), "b": torch.rand(2)}),
    }
    write_splits(tmp_path / "parts.safetensors", parts)
    found = read_splits(tmp_path / "parts.safetensors")
    assert sorted(found) == ["train", "val"]
    assert torch.equal(found["train"].inputs, parts["train"].inputs)
    assert torch.equal(found["train"].targets, parts["train"].targets)
    for side in ("inputs", "targets"):
        mine, theirs = getattr(found["val"], side), getattr(parts["val"], side)
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
