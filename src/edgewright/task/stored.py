"""Parts of a task in a file, for other processes: safetensors, trees flattened by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from edgewright.core.files import written_whole
from edgewright.task.base import Split

ALONE = "*"  # the name of a tensor that is its whole tree


def write_splits(path: Path, parts: Mapping[str, Split]) -> None:
    """Write named splits, whole."""
    tensors: dict[str, Tensor] = {}
    for number, (part, split) in enumerate(parts.items()):
        for side, tree in (("inputs", split.inputs), ("targets", split.targets)):
            named = tree.items() if isinstance(tree, Mapping) else [(ALONE, tree)]
            for place, (name, leaf) in enumerate(named):  # numbered, as the file has an order of its own
                tensors[f"{number:06}/{part}/{side}/{place:04}/{name}"] = leaf.contiguous()
    with written_whole(path) as unfinished:
        save_file(tensors, unfinished)


def read_splits(path: Path) -> dict[str, Split]:
    """What `write_splits` wrote: parts, and the tensors of a tree, in their order."""
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, leaf in sorted(load_file(path).items()):
        _, part, side, _, name = key.split("/", 4)
        found.setdefault(part, {}).setdefault(side, {})[name] = leaf
    return {part: Split(_tree(sides["inputs"]), _tree(sides["targets"])) for part, sides in found.items()}


def _tree(tensors: dict[str, Tensor]) -> Any:
    return tensors.get(ALONE, tensors)
