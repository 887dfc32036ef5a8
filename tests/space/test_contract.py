"""The contract of every space: what it gives is valid, follows the seed, round-trips, builds, costs what it says."""

import json
import random
from dataclasses import asdict
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgewright.core.errors import BadInput
from edgewright.core.tensors import TensorSpec
from edgewright.device.here.runtime import input_for, open_session, run
from edgewright.ir.graph import count_macs, weight_shape
from edgewright.ir.structure import structure
from edgewright.ir.to_onnx import to_onnx
from edgewright.model.heads.pool import PoolHead
from edgewright.space.base import TabularSpace
from edgewright.space.resolve import make_tabular, spaces

NAMES = sorted(spaces())
TABULAR = [name for name in NAMES if issubclass(spaces()[name], TabularSpace)]
TASKS = st.tuples(st.sampled_from([1, 3]), st.sampled_from([2, 7]), st.sampled_from([8, 17, 32, 50, (49, 10), (8, 40)]))
LARGEST_MACS = 3e7  # larger ones are built the same, slowly


def draw_from(space, seed: int, changes: int):
    """Sampled, crossed and mutated."""
    rng = random.Random(seed)
    architecture = space.sample(rng)
    for _ in range(changes):
        architecture = space.mutate(space.crossover(architecture, space.sample(rng), rng), rng)
    return architecture


@pytest.mark.parametrize("name", NAMES)
@given(task=TASKS, seed=st.integers(0, 2**32), changes=st.integers(0, 3))
@settings(max_examples=12)
def test_architectures_round_trip_and_follow_the_seed(name, task, seed, changes):
    space = spaces()[name].for_images(*task)
    architecture = draw_from(space, seed, changes)
    assert draw_from(space, seed, changes) == architecture
    again = space.read(json.loads(architecture.to_json()))
    assert again == architecture and again.key() == architecture.key()
    assert space.mutate(architecture, random.Random(seed)) != architecture
    assert space.describe(architecture)
    graph = space.graph(architecture)
    assert graph.input_shape[0] == task[0] and graph.output_shape == (task[1],)
    by_blocks, at_once = asdict(space.structure(architecture)), asdict(structure(graph))
    assert by_blocks == pytest.approx(at_once)


@pytest.mark.parametrize("name", NAMES)
@given(task=TASKS, seed=st.integers(0, 2**32))
@settings(max_examples=6)
def test_what_is_built_is_what_was_counted(name, task, seed):
    space = spaces()[name].for_images(*task)
    architecture = draw_from(space, seed, 1)
    graph, facts = space.graph(architecture), space.structure(architecture)
    if count_macs(graph) > LARGEST_MACS:
        architecture = space.smallest()
        graph, facts = space.graph(architecture), space.structure(architecture)
    model, x = space.build(architecture).eval(), torch.randn(2, *graph.input_shape)
    with torch.inference_mode():
        for block_name, block in space.blocks(architecture):
            assert tuple(x.shape[1:]) == block.input_shape
            x = model.get_submodule(block_name)(x)
            assert tuple(x.shape[1:]) == block.output_shape
        x = torch.randn(1, *graph.input_shape)
        with FlopCounterMode(display=False) as counter:
            logits = model(x)
    assert logits.shape == (1, task[1]) and torch.isfinite(logits).all()
    # An operator that nothing reaches is counted; one whose output nobody reads is not run.
    assert facts.live_macs <= counter.get_total_flops() // 2 <= count_macs(graph)
    if facts.live_macs == count_macs(graph):
        assert counter.get_total_flops() // 2 == count_macs(graph)
    weighted = [op for op in graph.ops if op.kind in ("conv", "linear")]
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(m.weight.numel() for m in layers) == sum(prod(weight_shape(graph, op)) for op in weighted)
    if isinstance(space, TabularSpace):
        assert sum(p.numel() for p in model.parameters()) == space.params(architecture)
    session = open_session(to_onnx(graph))
    assert run(session, input_for(session, seed=0))[0].shape == (1, task[1])


@pytest.mark.parametrize("name", TABULAR)
@given(data=st.data())
@settings(max_examples=25)
def test_every_architecture_has_a_number(name, data):
    space = make_tabular(name)
    row = data.draw(st.integers(0, len(space) - 1))
    architecture = space.at(row)
    assert space.index(architecture) == row
    assert space.decode(space.encode(architecture)) == architecture
    assert space.index(space.sample(random.Random(row))) in range(len(space))
    first = space.canonical(row)
    assert first <= row and space.canonical(first) == first
    other = space.mutate(architecture, random.Random(row))
    assert sum(a != b for a, b in zip(space.encode(architecture), space.encode(other), strict=True)) == 1


@pytest.mark.parametrize("name", TABULAR)
def test_samples_are_spread_over_all_choices(name):
    space, rng = make_tabular(name), random.Random(1)
    drawn = np.array([space.encode(space.sample(rng)) for _ in range(400)])
    for place, count in enumerate(space.choices()):
        assert np.bincount(drawn[:, place], minlength=count).min() > 400 / count * 0.5


@pytest.mark.parametrize("name", TABULAR)
def test_what_is_not_of_the_space_is_refused(name):
    space = make_tabular(name)
    good = json.loads(space.smallest().to_json())
    for change, word in (({"outputs": 4}, "outputs is 4; for this task it is 10"), ({"space": "mobile"}, "space")):
        with pytest.raises(BadInput, match=word):
            space.read({**good, **change})
    for vector in ((0,) * (len(space.choices()) + 1), (-1, *(0,) * (len(space.choices()) - 1))):
        with pytest.raises(BadInput, match=f"space {name}"):
            space.decode(vector)
    with pytest.raises(IndexError):
        space.at(len(space))
    with pytest.raises(BadInput, match="8 to 512 px, not 600 px"):
        spaces()[name].for_images(3, 10, 600)


def test_facts_of_many_are_those_of_each():
    space = make_tabular("nbmacro")
    rows = (6560, 3, 77)
    facts = space.facts(rows)
    for place, row in enumerate(rows):
        assert {name: values[place] for name, values in facts.items()} == asdict(space.structure(space.at(row)))
    with pytest.raises(BadInput, match="no tables speak of the space 'mobile'; choose from nb201"):
        make_tabular("mobile")


SEVERAL = (
    TensorSpec(name="rgb", shape=(3, 24, 17)),
    TensorSpec(name="tilt", shape=(5,)),
    TensorSpec(name="depth", shape=(1, 24, 17)),
)


@pytest.mark.parametrize("name", NAMES)
def test_several_inputs_are_joined_into_one_map(name):
    """Counted and built alike; by position and by name the same; every input matters."""
    torch.manual_seed(0)
    space = spaces()[name](SEVERAL, PoolHead(3))
    architecture = space.smallest()
    graph, model = space.graph(architecture), space.build(architecture).eval()
    height, width = space.resolution(architecture)
    given = {
        "rgb": torch.randn(2, 3, height, width),
        "tilt": torch.randn(2, 5),
        "depth": torch.randn(2, 1, height, width),
    }
    assert [graph.shapes[index] for index in graph.inputs] == [tuple(x.shape[1:]) for x in given.values()]
    with torch.inference_mode():
        y = model(*given.values())
        torch.testing.assert_close(model(**dict(reversed(given.items()))), y)
        assert y.shape == (2, 3)
        for key in given if name != "nb201" else ():  # whose smallest cell is all but dead
            assert not torch.equal(model(**given | {key: given[key] + 1}), y)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(*(x[:1] for x in given.values()))
    assert counter.get_total_flops() // 2 == count_macs(graph)


def test_inputs_that_no_map_can_be_made_of_are_refused():
    for wrong in (SEVERAL[1:2], (SEVERAL[0], TensorSpec(name="d", shape=(1, 24, 16)))):
        with pytest.raises(BadInput, match="takes maps"):
            spaces()["mobile"](wrong, PoolHead(3))


@pytest.mark.parametrize("name", NAMES)
def test_levels_end_where_the_map_gets_smaller(name):
    space = spaces()[name].for_images(3, 4, (64, 40))
    stem = space.stem(space.sample(random.Random(2)))
    levels = space.levels(stem)
    sizes = [stem[index][1].output_shape[1:] for index in levels]
    assert levels[-1] == len(stem) - 1
    assert sizes == sorted({graph.output_shape[1:] for _, graph in stem}, reverse=True)
    assert space.read_levels(stem) == (len(stem) - 1,)


def test_an_architecture_of_version_0_1_is_read():
    space = spaces()["mobile"].for_images(3, 10, 32)
    data = space.sample(random.Random(0)).model_dump(mode="json")
    old = {("classes" if name == "outputs" else name): value for name, value in data.items()}
    assert space.read(old) == space.read(data)
