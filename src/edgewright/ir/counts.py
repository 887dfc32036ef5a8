"""What an operator computes, from the shapes of its weight and its output: the formulas of every count are here.

Multiply-adds are those of convolutions, of products with a matrix and of recurrences; norms, activations, poolings and
sums count as none, as is customary. A shape may have a batch or not: the count is of as many inputs as it holds. With
G groups, kernel k, and w the weight:

    convolution       w (C_out, C_in / G, k...)    each number that it makes is a sum of C_in / G x k x ... products
    transposed        w (C_in, C_out / G, k...)    each number that it reads goes into C_out / G x k x ... products
    linear            w (C_out, C_in)              each number that it makes is a sum of C_in products
    matrix product    (..., M, K) x (..., K, N)    the same, of K products
    recurrence        w (gates H, C + H)           the whole weight once a step
    embedding         w (words, C)                 none: a row is fetched

Checked against: counts by hand, torch.utils.flop_counter, and each other from three sources (tests/ir/test_readers.py).
"""

from collections.abc import Sequence
from math import prod

Shape = tuple[int, ...]
GATES = {"lstm": 4, "gru": 3}


def conv_macs(weight: Sequence[int], output: Sequence[int]) -> int:
    """Multiply-adds of a convolution over any number of axes, grouped or not; output (..., C_out, sides)."""
    return prod(output) * prod(weight[1:])


def transposed_macs(weight: Sequence[int], source: Sequence[int]) -> int:
    """Multiply-adds of a transposed convolution; source (..., C_in, sides). What it crops was computed and counts."""
    return prod(source) * prod(weight[1:])


def product_macs(inner: int, output: Sequence[int]) -> int:
    """Multiply-adds of a product of matrices, weights or not, that sums over `inner`; output (..., M, N)."""
    return prod(output) * inner


def attention_macs(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> int:
    """Multiply-adds of q k' and of its softmax times v: query (..., L, E), key (..., S, E), value (..., S, V)."""
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def recurrent_macs(weights: int, steps: int) -> int:
    """Multiply-adds of one direction of a recurrent layer over `steps` steps; weights: how many numbers its weights
    have, without biases."""
    return weights * steps


def params(weight: Sequence[int]) -> int:
    """Numbers of a weight; none for (), which is no weight."""
    return prod(weight) if weight else 0


def depthwise(groups: int, channels: int) -> bool:
    """Whether a convolution of `channels` channels reads each alone, and there are several to tell apart.

    However many it makes of each (a depth multiplier); a convolution of a single channel is dense."""
    return groups == channels > 1


def conv_layer(kernel: Sequence[int], groups: int, channels: int) -> str:
    """The kind of layer by which a processor's speed differs: "depthwise", "pointwise" (grouped or not), "dense"."""
    if depthwise(groups, channels):
        return "depthwise"
    return "pointwise" if set(kernel) == {1} else "dense"
