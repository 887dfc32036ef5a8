"""What goes into a network and what comes out: named tensors, and batches of them as plain trees.

A batch of inputs, targets or outputs is a *tree*: one tensor where there is one, else a dict of tensors by name, each
with the batch as its first axis. Most tasks have one of each, and their code reads as if nothing else existed; what
handles any task goes through the functions here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from edgewright.core.data import Frozen

Shape = tuple[int, ...]
Size = tuple[int, int]  # height and width of a map, pixels


def sides(size: "int | Sequence[int]") -> Size:
    """Height and width; a square is also given by its side."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def compact(size: Size) -> "int | Size":
    """A size as it is written down: a square by its side."""
    return size[0] if size[0] == size[1] else size


def scaled(size: Size, share: float, multiple: int = 1, least: int = 1) -> Size:
    """Both sides times `share`, to the nearest multiple, at least `least`."""
    height, width = (max(least, round(side * share / multiple) * multiple) for side in size)
    return (height, width)


class TensorSpec(Frozen):
    """One named input or output. shape: without the batch; None varies.   dtype: as NumPy names it."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


class Signature(Frozen):
    """What a network takes and gives, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def size_text(size: Size) -> str:
    """For people: "32 px", "49 x 10 px"."""
    return f"{size[0]} px" if size[0] == size[1] else f"{size[0]} x {size[1]} px"


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `function` applied to each of its tensors."""
    if isinstance(tree, Mapping):
        return {name: function(leaf) for name, leaf in tree.items()}
    return function(tree)


def leaves(tree: Any) -> list[Any]:
    """The tensors of a tree, in its order."""
    return list(tree.values()) if isinstance(tree, Mapping) else [tree]


class Named(Protocol):
    """Whatever says what a tensor is called."""

    @property
    def name(self) -> str: ...


def named(tree: Any, specs: Sequence[Named]) -> dict[str, Any]:
    """The tensors of a tree by the names of `specs`: a tensor alone is called as the one spec is.

    Errors: KeyError for a tensor that is missing.
    """
    if isinstance(tree, Mapping):
        return {spec.name: tree[spec.name] for spec in specs}
    return {specs[0].name: tree}


def as_tree(tensors: Mapping[str, Any]) -> Any:
    """Named tensors as a tree: one of them alone is the tree."""
    return next(iter(tensors.values())) if len(tensors) == 1 else dict(tensors)


def gathered(trees: Sequence[Any], join: Callable[[list[Any]], Any]) -> Any:
    """Trees of one form as one, their tensors joined by `join`, a function of a list (`torch.cat`)."""
    first = trees[0]
    if isinstance(first, Mapping):
        return {name: join([tree[name] for tree in trees]) for name in first}
    return join(list(trees))


def paired(first: Any, second: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name and tensors of two trees of one form; the name of a tensor alone is ""."""
    if isinstance(first, Mapping):
        yield from ((name, leaf, second[name]) for name, leaf in first.items())
    else:
        yield "", first, second


def rows(tree: Any) -> int:
    """How many samples a batch holds."""
    return len(leaves(tree)[0])


def ask(network: Callable[..., Any], inputs: Any) -> Any:
    """What a network gives for a tree of inputs: several inputs are handed over by name.

    A tuple or list that it gives is a fault of the network's: outputs are a tensor or a dict of them.
    """
    return network(**inputs) if isinstance(inputs, Mapping) else network(inputs)
