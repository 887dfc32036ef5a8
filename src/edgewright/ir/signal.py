"""How the signal runs through an untrained network, in closed form: which convolutions its output is made of.

A mean-field picture of a network with batch norms, on graphs without weights. What a convolution gives is new: of
variance 1 and independent of everything before, whatever it reads (its batch norm sees to the variance, its random
weights to the independence). All else is linear: sums add what is the same coherently, an average pooling damps fine
detail. So every tensor is a sum of what convolutions gave, with known coefficients:

    T = sum_j c_j U_j            share of convolution j in T:   s_j(T) = c_j^2 / sum_i c_i^2

The detail of an image is three bands, coarse to fine, with POWERS of a fresh U. An average pooling over more pixels
than its stride multiplies their amplitudes by DAMPING (one that only halves the image blurs nothing that the smaller
image could show); a convolution's output has half the bands of what it read and half fresh ones. The *influence* of a
convolution is the expected number of times that a walk from the output back to the input meets it, when each step goes
to the convolutions that a tensor is made of with probability s_j:

    I_l = s_l(output) + sum_{m reads l} I_m s_l(input of m)

Two plain connections over the same tensor double its amplitude in each block, so that after a few blocks the
convolutions have no share in the output: the shares show it where counts of operators do not.

Cost: a millisecond or two for a network of a hundred convolutions; no weights, no data.
Differs from a network: the ReLUs' correlations are left out, and a concatenation's parts are taken as independent.
Checked against: cases by hand, and the variances of random networks (tests/core/test_signal.py).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewright.ir.graph import Graph
from edgewright.ir.op import Op
from edgewright.ir.sizes import area
from edgewright.ir.walk import extreme, is_conv, is_pooling, live_ops, walk

Array = NDArray[np.float64]
Sources = list[tuple[int, Array]]

POWERS = np.array([0.6, 0.268, 0.132])
DAMPING = np.array([1.0, 0.33, 0.0])
FRESH = 0.5
SHORTENING = 0.25
NO_PATH = 1e-4
SEES_NEIGHBOURS = 9.0
FELT = 0.65


@dataclass(frozen=True, slots=True)
class Signal:
    """Facts of one network, larger promises better; all are minus infinity where no path reaches the output.

    work: sum over live convolutions of V_l^(1/3) C_l^(1/4) n_l I_l^FELT, with V_l the numbers that it gives, C_l the
        channels that each is made of, and n_l SEES_NEIGHBOURS for a kernel over more than one pixel, else 1.
        Multiply-adds (V C k^2) overrate late, wide layers and large kernels.
    shortcuts: mean over blocks of log(sum over paths without a pooling of SHORTENING^(longest - convolutions on the
        path)), longest: most convolutions on any path of the block; NO_PATH in place of an empty sum. Many and short
        ways around the long one.
    balance: minus the mean over blocks of the largest share in the block's output.
    detail: minus the mean over live convolutions of the coarse band's share in what they read.
    """

    work: float
    shortcuts: float
    balance: float
    detail: float


BROKEN = Signal(*(-math.inf,) * 4)


def signal(blocks: Iterable[Graph]) -> Signal:
    """The facts of a network that is `blocks` one after the other (as a space's `blocks`, without the names)."""
    parts = [(graph, live_ops(graph)) for graph in blocks]
    count = sum(op.kind == "conv" for _, ops in parts for op in ops)
    if any(graph.ops and not ops and graph.output != graph.input for graph, ops in parts):
        return BROKEN
    carried = _Walk(count)
    largest, shortcuts = [], []
    for graph, ops in parts:
        shares = carried.through(graph, ops)
        largest.append(float(shares.max()))
        shortcuts.append(_shortcuts(graph, ops))
    return Signal(
        work=float(np.array(carried.worth) @ carried.influences() ** FELT),
        shortcuts=float(np.mean(shortcuts)),
        balance=-float(np.mean(largest)),
        detail=-float(np.mean(carried.coarse)) if count else 0.0,
    )


def influences(blocks: Iterable[Graph]) -> Array:
    """I_l of every live convolution, in running order."""
    parts = [(graph, live_ops(graph)) for graph in blocks]
    carried = _Walk(sum(op.kind == "conv" for _, ops in parts for op in ops))
    for graph, ops in parts:
        carried.through(graph, ops)
    return carried.influences()


class _Walk:
    """Carries the coefficients c (component, band) through the blocks; component 0 is the image."""

    def __init__(self, count: int) -> None:
        self._state = np.zeros((count + 1, len(POWERS)))
        self._state[0] = np.sqrt(POWERS)
        self._read: list[Array] = []  # of each convolution met so far, the shares in what it reads
        self.worth: list[float] = []  # V^(1/3) C^(1/4) n
        self.coarse: list[float] = []

    def through(self, graph: Graph, ops: tuple[Op, ...]) -> Array:
        """Run one block; the shares in its output."""

        def made(op: Op, sources: Sources) -> Array:
            return self._convolve(graph, op, sources[0][1]) if op.kind == "conv" else _pass(graph, op, sources)

        self._state = walk({graph.input: self._state}, ops, made)[graph.output]
        power = (self._state**2).sum(axis=1)
        return power / power.sum()

    def _convolve(self, graph: Graph, op: Op, source: Array) -> Array:
        power = source**2
        total = power.sum()
        bands = power.sum(axis=0) / total
        self._read.append(power.sum(axis=1) / total)
        channels = graph.shapes[op.inputs[0]][0] // op.groups
        seen = SEES_NEIGHBOURS if op.kernel != 1 else 1.0
        self.worth.append(math.prod(graph.shapes[op.output]) ** (1 / 3) * channels**0.25 * seen)
        self.coarse.append(float(bands[0]))
        made = np.zeros_like(power)
        made[len(self._read)] = np.sqrt(FRESH * POWERS + (1 - FRESH) * bands)
        return made

    def influences(self) -> Array:
        power = (self._state**2).sum(axis=1)
        found = power / power.sum()
        for number in range(len(self._read), 0, -1):  # from the output back
            found += found[number] * self._read[number - 1]
        return found[1:]


def _pass(graph: Graph, op: Op, sources: Sources) -> Array:
    """What an operator without weights makes of the coefficients."""
    first = sources[0][1]
    if op.kind == "avg_pool":
        return first * DAMPING if area(op.kernel, 2) > area(op.stride, 2) else first
    if op.kind == "add":
        return sum(tensor for _, tensor in sources[1:]) + first
    if op.kind == "concat":
        width = graph.shapes[op.output][0]
        return np.sqrt(sum(graph.shapes[name][0] / width * tensor**2 for name, tensor in sources))
    if op.kind == "norm":
        return first / math.sqrt(float((first**2).sum()))
    return first  # activations, gates, what is taken; the head's pooling and its linear layer


def _shortcuts(graph: Graph, ops: tuple[Op, ...]) -> float:
    """The block's term of `Signal.shortcuts`."""
    longest = extreme(graph, ops, is_conv, max)[graph.output]

    def made(op: Op, sources: list[tuple[int, float]]) -> float:
        return 0.0 if is_pooling(op) else SHORTENING ** is_conv(op) * sum(value for _, value in sources)

    clean = walk({graph.input: 1.0}, ops, made)[graph.output]
    return math.log(max(clean / SHORTENING**longest, NO_PATH))
