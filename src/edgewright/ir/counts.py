"""What an operator computes, from shapes: the formulas of every count in the package are here and nowhere else.

Multiply-adds are those of convolutions, of products of matrices and of recurrences; norms, activations, poolings and
sums count as none, as is customary. A shape may have a batch or not: the count is of as many inputs as it holds. With
G groups, kernel k, and w the weight:

    convolution       w (C_out, C_in / G, k...)    each number that it makes is a sum of C_in / G x k x ... products
    transposed        w (C_in, C_out / G, k...)    each number that it reads goes into C_out / G x k x ... products
    linear            w (C_out, C_in)              each number that it makes is a sum of C_in products
    matrix product    (..., M, K) x (..., K, N)    the same, of K products
    attention         q k', then its softmax v     the two matrix products
    recurrence        w (gates H, C + H)           the whole weight once a step
    embedding         w (words, C)                 none: a row is fetched

Checked against: counts by hand, torch.utils.flop_counter, and each other from three sources (tests/ir/test_readers.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

Shape = Sequence[int]
Layer = Literal["dense", "pointwise", "depthwise", "linear", "none"]
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclass(frozen=True, slots=True)
class Work:
    """What one operator computes.   macs: multiply-adds.   layer: what laws of speed tell apart: convolutions dense,
    pointwise (grouped or not) and depthwise, "linear" for all other products, "none" for what has no multiply-adds.
    weight: shape of what it multiplies by, or fetches from; () for none."""

    macs: int = 0
    layer: Layer = "none"
    weight: tuple[int, ...] = ()


NOTHING = Work()


def depthwise(groups: int, channels: int) -> bool:
    """Whether a convolution of `channels` channels reads each alone, and there are several to tell apart.

    However many it makes of each (a depth multiplier); a convolution of a single channel is dense."""
    return groups == channels > 1


def conv_layer(kernel: Shape, groups: int, channels: int) -> Layer:
    """The kind of layer that a convolution is, transposed or not."""
    if depthwise(groups, channels):
        return "depthwise"
    return "pointwise" if set(kernel) == {1} else "dense"


def convolution(weight: Shape, output: Shape, groups: int) -> Work:
    """Of any number of axes; output (..., C_out, sides)."""
    layer = conv_layer(weight[2:], groups, weight[1] * groups)
    return Work(prod(output) * prod(weight[1:]), layer, tuple(weight))


def transposed(weight: Shape, source: Shape, groups: int) -> Work:
    """A transposed convolution; source (..., C_in, sides). What it crops was computed and counts."""
    return Work(prod(source) * prod(weight[1:]), conv_layer(weight[2:], groups, weight[0]), tuple(weight))


def product(inner: int, output: Shape, weight: Shape = ()) -> Work:
    """A product of matrices that sums over `inner`; output (..., M, N).   weight: of a linear layer (C_out, C_in)."""
    return Work(prod(output) * inner, "linear", tuple(weight))


def attention(query: Shape, key: Shape, value: Shape) -> Work:
    """q k' and its softmax times v: query (..., L, E), key (..., S, E), value (..., S, V)."""
    return Work(prod(query[:-1]) * key[-2] * (query[-1] + value[-1]), "linear")


def recurrence(weights: Sequence[Shape], steps: int) -> Work:
    """Every matrix of `weights` once a step, each (gates H, C or H), of all layers and directions; vectors are biases.
    The weight is all of them side by side."""
    matrices = [weight for weight in weights if len(weight) > 1]
    total = sum(prod(weight) for weight in matrices)
    return Work(steps * total, "linear", (matrices[0][0], total // matrices[0][0]))


def fetch(weight: Shape) -> Work:
    """An embedding: rows of a table (words, C)."""
    return Work(weight=tuple(weight))


def einsum(equation: str, operands: Sequence[Shape]) -> Work | None:
    """A sum of products named by letters: one product for every value of all letters. None for more operands than two,
    whose order of evaluation is the library's to choose."""
    if len(operands) == 1:
        return NOTHING
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(operands) != 2 or len(terms) != 2:
        return None
    sizes: dict[object, int] = {}
    for term, shape in zip(terms, operands, strict=True):
        for label, size in zip(_labels(term, len(shape)), shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return Work(prod(sizes.values()), "linear")


def _labels(term: str, rank: int) -> list[object]:
    """A label for each axis; those under an ellipsis are counted from its end, as they are matched."""
    before, dots, after = term.partition("...")
    hidden = range(rank - len(before) - len(after)) if dots else ()
    return [*before, *reversed(hidden), *after]


def numbers(weight: Shape) -> int:
    """How many numbers a weight has; none for (), which is no weight."""
    return prod(weight) if weight else 0
