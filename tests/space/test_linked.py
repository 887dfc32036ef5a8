"""Cells with long links: what is built is what the graph says, and the links are those of the definition."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgewright.core.errors import BadInput
from edgewright.device.here.runtime import input_for, open_session, run
from edgewright.ir.graph import count_macs, count_params
from edgewright.ir.to_onnx import to_onnx
from edgewright.model.linked import Cell, LinkedCell, linked_channels
from edgewright.space.spaces.linked import LinkedDense, LinkedMobile, LinkedResidual, cell_graph, valid_cell

SPACES = (LinkedDense, LinkedResidual, LinkedMobile)


def macs_by_torch(model: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(x)
    return counter.get_total_flops() // 2


@st.composite
def evolved(draw):
    space = draw(st.sampled_from(SPACES)).for_images(
        draw(st.sampled_from([1, 3])), 7, draw(st.sampled_from([8, 17, 32, 50]))
    )
    rng = random.Random(draw(st.integers(0, 2**32)))
    architecture = space.sample(rng)
    for _ in range(draw(st.integers(0, 3))):
        architecture = space.mutate(space.crossover(architecture, space.sample(rng), rng), rng)
    return space, architecture


@given(evolved())
@settings(max_examples=30, deadline=None)
def test_what_is_built_costs_what_was_counted(case):
    space, architecture = case
    assert space.read(json.loads(architecture.model_dump_json())) == architecture
    graph = space.graph(architecture)
    if count_macs(graph) > 3e7:
        return
    model, x = space.build(architecture).eval(), torch.randn(2, *graph.input_shape)
    for name, block in space.blocks(architecture):
        assert tuple(x.shape[1:]) == block.input_shape
        x = model.get_submodule(name)(x)
        assert tuple(x.shape[1:]) == block.output_shape
    widths = [0, *(cell.width for cell in architecture.cells)]
    parts = [space.part(i, widths[i], cell) for i, cell in enumerate(architecture.cells)]
    assert [g for p in (*parts, space.part(-1, widths[-1], None)) for g in p] == [
        g for _, g in space.blocks(architecture)
    ]
    x = torch.randn(1, *graph.input_shape)
    assert macs_by_torch(model, x) == count_macs(graph)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(m.weight.numel() + m.weight.shape[0] for m in layers) == count_params(graph)
    session = open_session(to_onnx(graph))
    assert run(session, input_for(session, seed=0))[0].shape == (1, 7)


@pytest.mark.parametrize("family", ["dense", "residual", "mobile"])
def test_a_cell_reads_the_nearest_channels(family):
    """Against a cell written out: every layer reads the one before and the last t channels made before that."""
    cell = Cell(width=16, depth=5, links=32 if family == "residual" else 24)
    torch.manual_seed(0)
    module = LinkedCell(8, cell, family, 2).eval()
    x = torch.randn(3, 8, 9, 6)
    done = [module.layers[0](x).relu()]
    for index in range(1, cell.depth):
        earlier, layer = done[:-1], module.layers[index]
        if family == "residual":
            added = earlier[::-1][: min(2, len(earlier))]
            out = layer(done[-1]) + sum(added) if added else layer(done[-1])
        else:
            out = layer(torch.cat([done[-1], torch.cat(earlier[::-1], 1)[:, :24]] if earlier else [done[-1]], 1))
        done.append(out.relu())
    torch.testing.assert_close(module(x), done[-1], rtol=1e-4, atol=1e-5)
    assert tuple(module(x).shape[1:]) == cell_graph((8, 9, 6), cell, family, 2).output_shape


def test_links_are_those_of_the_definition():
    """Against an explicit adjacency of channels: layer i may link to the w (i - 1) channels before its predecessor."""
    for width, depth, links in ((8, 2, 0), (8, 6, 16), (16, 9, 200), (24, 4, 24), (40, 3, 8)):
        adjacency = np.zeros((depth, depth * width), bool)
        for layer in range(depth):
            free = max(0, (layer - 1) * width)
            adjacency[layer, :free][:links] = True
        cell = Cell(width=width, depth=depth, links=links)
        assert [linked_channels(cell, layer) for layer in range(depth)] == adjacency.sum(axis=1).tolist()


def test_a_cell_is_rounded_to_one_of_the_space():
    assert valid_cell("linked-dense", 19.9, 5.4, 21) == Cell(width=16, depth=5, links=24)
    assert valid_cell("linked-residual", 24, 5, 40) == Cell(width=24, depth=5, links=48)
    assert valid_cell("linked-dense", -3, 99, 1e9) == Cell(width=8, depth=14, links=96)
    assert valid_cell("linked-mobile", 8, 2, 64).links == 0  # a cell of two layers has nothing to link


@pytest.mark.parametrize("space", SPACES)
def test_faults_are_named(space):
    made = space.for_images(3, 10, 32)
    good = json.loads(made.smallest().model_dump_json())
    for change, word in (
        ({"outputs": 4}, "outputs"),
        ({"cells": [{"width": 9, "depth": 3, "links": 0}] * 3}, "width 9"),
        ({"cells": [{"width": 8, "depth": 30, "links": 0}] * 3}, "depth 30"),
        ({"cells": [{"width": 8, "depth": 3, "links": 64}] * 3}, "64 linked channels"),
    ):
        with pytest.raises(BadInput, match=word):
            made.read({**good, **change})
    with pytest.raises(BadInput, match="600 px"):
        space.for_images(3, 10, 600)
