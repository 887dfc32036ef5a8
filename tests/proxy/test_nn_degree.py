"""NN-Mass and NN-Degree against links counted in an adjacency, by hand, and their monotony."""

import itertools

import pytest
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.model.linked import Cell
from edgewright.proxy.base import score
from edgewright.proxy.scores.nn_degree import degree, mass, nn_degree, nn_mass
from made_network import linked_net

HAND = [(3, 4, 5), (8, 2, 100), (2, 6, 3), (5, 5, 0), (1, 7, 2)]


def counted(w: int, d: int, t: int) -> tuple[int, int]:
    """(long links, possible long links) of an explicit adjacency between the channels of the layers."""
    channels = [(layer, index) for layer in range(d) for index in range(w)]
    links = possible = 0
    for layer in range(2, d):
        sources = [c for c in channels if c[0] < layer - 1]  # the layer before is the lattice
        possible += len(sources) * w
        links += len(sources[:t] if t < len(sources) else sources) * w
    return links, possible


@pytest.mark.parametrize("cell", HAND)
def test_equals_counted_links(cell):
    w, d, t = cell
    links, possible = counted(w, d, t)
    assert nn_degree([cell]) == pytest.approx(w + links / (w * d))
    assert nn_mass([cell]) == pytest.approx(links / possible * w * d if possible else 0)


def test_by_hand_and_sums_over_cells():
    # (3, 4, 5): layers 2, 3 receive min(3, 5) = 3 and min(6, 5) = 5 channels, 3 links each: 24 of 27 possible.
    assert nn_degree([(3, 4, 5)]) == pytest.approx(3 + 24 / 12)
    assert nn_mass([(3, 4, 5)]) == pytest.approx(24 / 27 * 12)
    assert nn_degree(HAND) == pytest.approx(sum(nn_degree([cell]) for cell in HAND))
    assert nn_mass([(4, 5, 99)]) == 20  # all links: the number of channels


def test_grows_with_width_and_links():
    for w, d in itertools.product((2, 5), (3, 6)):
        values = [(nn_degree([(w, d, t)]), nn_mass([(w, d, t)])) for t in range(0, w * d, 2)]
        assert values == sorted(values)
        assert nn_degree([(w + 1, d, 4)]) > nn_degree([(w, d, 4)])


def test_is_read_off_a_model():
    cells = (Cell(width=8, depth=4, links=8), Cell(width=16, depth=3, links=8))
    model = linked_net(3, 5, cells, "dense")
    shapes = [(8, 4, 8), (16, 3, 8)]
    assert score(model, [], [degree(), mass()]) == {"nn_degree": nn_degree(shapes), "nn_mass": nn_mass(shapes)}


def test_missing_where_no_cells_are_offered():
    for model in (nn.Linear(2, 3), nn.ModuleDict({"cells": nn.ModuleList([nn.Linear(2, 2)])})):
        assert score(model, [], [degree(), mass()]) == {}
        assert "offers none" in degree().undefined(model)


@pytest.mark.parametrize("cell", [(0, 3, 1), (3, 0, 1), (3, 3, -1)])
def test_impossible_cells_are_refused(cell):
    with pytest.raises(BadInput, match="width and a depth"):
        nn_degree([cell])
