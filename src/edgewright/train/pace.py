r"""How long training takes here: measured on a few networks, and by a law on all others.

    t = sum_i c_i w_i,  c >= 0        seconds of one core for one sample, forward, backward and the optimizer's step

w: 1, multiply-adds of dense, of pointwise (with linear layers and products) and of depthwise convolutions, numbers
made, and operators. Least squares on relative errors. Two networks of equal latency may differ tenfold in it: what a
runtime does well, wide kernels and channels alone, is what a backward pass does badly.
"""

import time
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from edgewright.core.data import Frozen
from edgewright.core.tensors import Size, ask
from edgewright.ir.graph import Graph, op_macs
from edgewright.ir.op import work
from edgewright.task.base import Task, batches
from edgewright.train.precision import Precision, bfloat16_possible, computing, prepared

STEPS = 3  # the first of which prepares kernels, and is not judged
SLOW = 1.0  # seconds of a first step that is believed, for want of time
PIXELS = 32 * 64 * 64  # of the maps of a step
FEWEST, SAMPLES = 4, 64
LAYERS = ("dense", "pointwise", "depthwise", "linear")


class Pace(Frozen):
    """The law of this machine. coefficients: of `amounts`, seconds.   error: of the networks it was fitted to, in the
    median, 0.1 is 10 %.   together: how many times as fast as one of as many processes as there are cores is a training
    that has all of them: small networks gain little."""

    coefficients: tuple[float, ...]
    error: float
    together: float = 1.0

    def seconds(self, graph: Graph) -> float:
        """Of one core, for one sample."""
        return float(amounts(graph) @ np.array(self.coefficients))


def amounts(graph: Graph) -> np.ndarray:
    """What the time is made of (see the top of this file)."""
    macs = dict.fromkeys(LAYERS, 0)
    made = 0
    for op in graph.ops:
        layer = work(op, graph.shapes[op.inputs[0]], graph.shapes[op.output]).layer
        if layer in macs:
            macs[layer] += op_macs(graph, op)
        made += prod(graph.shapes[op.output])
    pointwise = macs["pointwise"] + macs["linear"]
    return np.array([1.0, macs["dense"], pointwise, macs["depthwise"], made, len(graph.ops)], dtype=float)


def fit_pace(graphs: Sequence[Graph], seconds: Sequence[float], together: float = 1.0) -> Pace:
    """The law of networks that were measured."""
    taken, rows = np.array(seconds), np.array([amounts(graph) for graph in graphs])
    scale = rows.max(axis=0) + 1e-30
    solution, _ = nnls(rows / scale / taken[:, None], np.ones(len(taken)), maxiter=10_000)
    coefficients = solution / scale
    errors = np.abs(rows @ coefficients / taken - 1)
    return Pace(coefficients=tuple(coefficients.tolist()), error=float(np.median(errors)), together=together)


def measured_pace(model: nn.Module, task: Task, size: Size) -> float:
    """Seconds that a sample takes in a step of training, in this process with the threads it has: the quickest of a few
    steps, in the quicker of the precisions there are. The model's weights are another's afterwards."""
    precisions: list[Precision] = ["float32", "bfloat16"] if bfloat16_possible("cpu") else ["float32"]
    return min(_measured(model, task, size, one) for one in precisions)


def _measured(model: nn.Module, task: Task, size: Size, precision: Precision) -> float:
    part = task.train.take(slice(max(FEWEST, min(SAMPLES, PIXELS // prod(size)))))
    ((x, targets),) = batches(part, task.spec, batch_size=len(part), size=size)
    model = model.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    found = []
    for _ in range(STEPS):
        began = time.perf_counter()
        optimizer.zero_grad()
        with prepared(model, precision), computing(precision, "cpu"):
            task.kind.loss(ask(model, x), targets).backward()
        optimizer.step()
        found.append(time.perf_counter() - began)
        if found[0] > SLOW:
            return found[0] / len(part)
    return min(found[1:]) / len(part)
