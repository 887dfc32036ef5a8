"""NN-Mass and NN-Degree: accuracy from the links between layers alone, within one family of networks."""

from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import nn

from edgewright.core.errors import BadInput
from edgewright.proxy.base import Proxy

Shape = tuple[int, int, int]  # of a cell: width w in channels, depth d in layers, t = most linked channels of a layer


def nn_degree(cells: Iterable[Shape]) -> float:
    r"""Average degree of a layer's channels: the lattice's, which is the width, plus that of the long links.

        g = sum_c ( w_c + SC_c / (w_c d_c) ),   SC_c = sum_{i=2}^{d_c - 1} min(w_c (i - 1), t_c) w_c

    cells: (w, d, t) each, w >= 1, d >= 1, t >= 0. Links; higher is better, among networks of one family only: the same
    stem, number of cells and resolution. Source: Li et al., "FLASH: Fast Neural Architecture Search with Hardware
    Optimization", ACM TECS 2021, arXiv:2108.00568. Checked against: links counted in an explicit adjacency.
    """
    return sum(w + _links(w, d, t) / (w * d) for w, d, t in map(_checked, cells))


def nn_mass(cells: Iterable[Shape]) -> float:
    r"""Density of the long links times the number of channels.

        m = sum_c rho_c w_c d_c,   rho_c = sum_i min(w_c (i - 1), t_c) / sum_i w_c (i - 1),   i = 2 .. d_c - 1

    rho_c is the share of the possible long links that exist, 0 where none is possible (d <= 2), 1 where t takes all.
    cells: as in `nn_degree`. Channels; higher is better, within one family only.
    Source: Bhardwaj et al., "How Does Topology of Neural Architectures Impact Gradient Propagation and Model
    Performance?", CVPR 2021, arXiv:1910.00780. Checked against: links counted in an explicit adjacency.
    """
    total = 0.0
    for w, d, t in map(_checked, cells):
        possible = _links(w, d, w * d)
        total += w * d * _links(w, d, t) / possible if possible else 0.0
    return total


def degree() -> Proxy:
    """`nn_degree` of a model that offers its cells: an attribute `cells`, each with `width`, `depth` and `links`.

    No pass over the data. Undefined for other models. Source and checks: as `nn_degree`, arXiv:2108.00568.
    """
    return _proxy("nn_degree", "Li et al., FLASH, ACM TECS 2021, arXiv:2108.00568", "average degree", nn_degree)


def mass() -> Proxy:
    """`nn_mass` of a model that offers its cells, as for `degree`. No pass over the data. arXiv:1910.00780."""
    source = "Bhardwaj et al., NN-Mass, CVPR 2021, arXiv:1910.00780"
    return _proxy("nn_mass", source, "density of long links times channels", nn_mass)


def read_cells(model: nn.Module) -> tuple[Shape, ...]:
    """(w, d, t) of every cell that the model offers; () where it offers none."""
    offered = getattr(model, "cells", None)
    if not isinstance(offered, tuple | list):
        return ()
    cells = cast("tuple[Any, ...]", tuple(offered))
    if not all(hasattr(cell, name) for cell in cells for name in ("width", "depth", "links")):
        return ()
    return tuple((cell.width, cell.depth, cell.links) for cell in cells)


def _links(w: int, d: int, t: int) -> int:
    return sum(min(w * (i - 1), t) * w for i in range(2, d))


def _checked(cell: Shape) -> Shape:
    w, d, t = cell
    if w < 1 or d < 1 or t < 0:
        raise BadInput(f"a cell has a width and a depth of at least 1 and no negative links; got (w, d, t) = {cell}")
    return cell


def _proxy(name: str, source: str, summary: str, count: Callable[[Iterable[Shape]], float]) -> Proxy:
    def undefined(model: nn.Module) -> str:
        return (
            "" if read_cells(model) else f"{name} is read off cells (width, depth, links), and this model offers none"
        )

    return Proxy(
        name=name,
        source=source,
        summary=summary,
        init=lambda subject: count(read_cells(subject.model)),
        finish=float,
        undefined=undefined,
    )
