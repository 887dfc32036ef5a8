r"""HAWQ-V3: how many bits each layer gets, by an integer programme over measured sensitivities.

    min over x   sum_l Omega_l(x_l)     subject to   sum_l cost_l(x_l) <= limit  for each cost,   x_l = x_l' for ties
    Omega_l(b) = Tr(H_l) / n_l  ||Q_b(W_l) - W_l||^2

x_l: bits of layer l, its weights and what it reads.   H_l: Hessian of the loss with respect to W_l (n_l numbers).
Costs: bytes, n_l b / 8; bit operations, MACs_l b^2; latency as measured.   Ties: a shortcut's convolution and the last
one of its branch, whose outputs are added. Solved to optimality (`core.choose`).

Weights are quantised symmetrically for each output channel: s = max|w| / (2^(b-1) - 1).
The trace is Hutchinson's: the mean of v^T H v over vectors v of random signs.

Differs from the authors' code: that has no traces but tables of constants; a limit is a number here, not a share.
Source: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", ICML 2021, arXiv:2011.10680, sections 3 and 4.
Checked against: the optima of all 18 published problems (ResNet-18 and ResNet-50, size, bit operations and latency),
brute force, exact traces of a small network (tests/compress/test_hawq_v3.py). Of the bit strings
that came with these optima, those of four problems break their own limit or miss their own objective: misprints.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from edgewright.compress.bits.integer import quantised
from edgewright.core.choose import LEAST, choose
from edgewright.core.cost import figures
from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.core.seed import derive

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Allocation(Frozen):
    """bits: of each layer, in order.   penalty: sum of Omega.   costs: what it uses of each limit."""

    bits: tuple[int, ...]
    penalty: float
    costs: dict[str, float]

    def __str__(self) -> str:
        used = ", ".join(f"{name} {figures(value, 4)}" for name, value in self.costs.items())
        return f"{' '.join(map(str, self.bits))}  (penalty {self.penalty:.6g}; {used})"


def allocate(
    penalties: ArrayLike,
    costs: Mapping[str, ArrayLike],
    limits: Mapping[str, float],
    *,
    bits: Sequence[int] = (4, 8),
    ties: Iterable[Sequence[int]] = (),
) -> Allocation:
    """The bits with the least penalty inside all limits.

    Args:
        penalties: (layers, choices), Omega of each layer at each of `bits`.
        costs: by name, (layers, choices) each.   limits: by the same names.
        ties: groups of layers, by number, that get the same bits.
    Errors: BudgetInfeasible where even the cheapest choice breaks a limit, with the least that one can do; BadInput
        for tables of other shapes and names that do not agree.
    """
    omega = np.asarray(penalties, dtype=np.float64)
    tables = {name: np.asarray(table, dtype=np.float64) for name, table in costs.items()}
    _check(omega, tables, limits, bits)
    groups = _groups(len(omega), ties)
    joined = {name: _joined(table, groups) for name, table in (("", omega), *tables.items())}
    for name, limit in limits.items():
        least = joined[name].min(1).sum()
        if least > limit * (1 + LEAST):
            raise BudgetInfeasible(f"no choice of bits keeps {name} under {limit:g}: the least is {least:g}")
    chosen = _solve(joined[""], {name: joined[name] for name in limits}, dict(limits))
    number = np.empty(len(omega), dtype=int)
    for group, choice in zip(groups, chosen, strict=True):
        number[group] = choice
    rows = np.arange(len(omega))
    return Allocation(
        bits=tuple(bits[choice] for choice in number),
        penalty=float(omega[rows, number].sum()),
        costs={name: float(table[rows, number].sum()) for name, table in tables.items()},
    )


def _check(omega: NDArray[Any], tables: Mapping[str, NDArray[Any]], limits: Mapping[str, float], bits: Sequence[int]):
    for name, table in (("penalties", omega), *tables.items()):
        if table.shape != (len(omega), len(bits)) or not np.isfinite(table).all():
            raise BadInput(
                f"{name}: expected finite numbers of shape (layers, {len(bits)}), got {'x'.join(map(str, table.shape))}"
            )
    if not limits or set(limits) - set(tables):
        raise BadInput(f"limits {sorted(limits)} must be among the costs {sorted(tables)}, and at least one")


def _groups(layers: int, ties: Iterable[Sequence[int]]) -> list[list[int]]:
    home = list(range(layers))
    for tie in ties:
        if any(not 0 <= layer < layers for layer in tie):
            raise BadInput(f"tie {tuple(tie)}: there are layers 0 to {layers - 1}")
        root = min(home[layer] for layer in tie)
        joined = {home[layer] for layer in tie}
        home = [root if place in joined else place for place in home]
    return [[layer for layer in range(layers) if home[layer] == root] for root in sorted(set(home))]


def _joined(table: NDArray[np.float64], groups: list[list[int]]) -> NDArray[np.float64]:
    return np.stack([table[group].sum(0) for group in groups])


def _solve(omega: NDArray[Any], tables: dict[str, NDArray[Any]], limits: dict[str, float]) -> NDArray[np.int64]:
    """One of the choices for each row."""
    rows, choices = omega.shape
    # Only differences count; scaled, so that the solver's absolute tolerances are far below the last digit.
    worth = omega.min(1, keepdims=True) - omega
    place = np.repeat(np.arange(rows), choices).tolist()
    uses = {name: table.ravel() for name, table in tables.items()}
    found = choose(place, worth.ravel() * (1e4 / max(-worth.min(), 1e-300)), uses, limits)
    if found is None:
        raise BudgetInfeasible("no choice of bits keeps all limits together")
    return np.array(found) % choices


def penalties(model: nn.Module, traces: Mapping[str, float], bits: Sequence[int] = (4, 8)) -> NDArray[np.float64]:
    """Omega of each layer of `traces`, in its order, at each of `bits`; traces: Tr(H_l), not divided by n_l."""
    table = []
    for name, trace in traces.items():
        weight = model.get_parameter(f"{name}.weight").detach()
        wide = (1, *weight.shape[1:])
        row = []
        for width in bits:
            codes, scales = quantised(weight, width)
            near = codes * scales.reshape(-1, *(1,) * (len(wide) - 1))
            row.append(trace / weight.numel() * (near - weight).double().square().sum().item())
        table.append(row)
    return np.array(table)


def hessian_traces(
    model: nn.Module,
    loss: Loss,
    batches: Sequence[tuple[Tensor, Tensor]],
    layers: Sequence[str],
    *,
    draws: int = 32,
    seed: int = 0,
) -> dict[str, float]:
    """Hutchinson's estimate of Tr(H_l) for the weight of each layer, H of the mean loss over `batches`.

    The model runs as it is (evaluation mode is advised); its gradients are left alone. The blocks are estimated
    together: what couples two layers has mean zero. Standard error: sqrt(2 ||H||_F^2 / draws) at most, of all H.
    """
    if not batches or not layers:
        raise BadInput("traces need at least one batch and one layer")
    weights = [model.get_parameter(f"{name}.weight") for name in layers]
    flags = [weight.requires_grad for weight in weights]
    totals = np.zeros(len(layers))
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for number, (x, y) in enumerate(batches):
            gradients = torch.autograd.grad(loss(model, x, y), weights, create_graph=True)
            for draw in range(draws):
                generator = torch.Generator().manual_seed(derive(seed, "trace", number, draw))
                signs = [_signs(weight, generator) for weight in weights]
                along = sum(((g * v).sum() for g, v in zip(gradients, signs, strict=True)), torch.zeros(()))
                products = torch.autograd.grad(along, weights, retain_graph=True)
                totals += [(v * p).sum().item() for v, p in zip(signs, products, strict=True)]
    finally:
        for weight, flag in zip(weights, flags, strict=True):
            weight.requires_grad_(flag)
    return dict(zip(layers, (totals / (draws * len(batches))).tolist(), strict=True))


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)
