"""Any architecture that the space gives builds, runs, round-trips, and costs what the counters say."""

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgewright.core.errors import BadInput
from edgewright.core.graph import count_macs, count_params
from edgewright.model.mobile import Block
from edgewright.space.mobile import EXPANSIONS, KERNELS, KINDS, MobileArchitecture, MobileSpace, block_graph

TASKS = st.sampled_from([(1, 10, 8), (1, 3, 17), (3, 10, 28), (3, 10, 32), (3, 5, 50), (3, 2, 64), (4, 7, 96)])


@st.composite
def evolved(draw):
    """A space and an architecture that was sampled, crossed and mutated."""
    space = MobileSpace(*draw(TASKS))
    rng = random.Random(draw(st.integers(0, 2**32)))
    architecture = space.sample(rng)
    for _ in range(draw(st.integers(0, 3))):
        architecture = space.crossover(architecture, space.sample(rng), rng)
        architecture = space.mutate(architecture, rng)
    return space, architecture


def macs_by_torch(model: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(x)
    return counter.get_total_flops() // 2


def params_when_folded(model: nn.Module) -> int:
    """Weights, plus one bias a channel for every convolution whose norm is folded into it."""
    total = 0
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            total += module.weight.numel() + module.weight.shape[0]
    return total


@given(evolved())
@settings(max_examples=60)
def test_architectures_round_trip_and_are_valid(case):
    space, architecture = case
    again = space.read(json.loads(architecture.model_dump_json()))
    assert again == architecture
    assert again.key() == architecture.key()


@given(evolved())
@settings(max_examples=60)
def test_the_image_is_neither_strided_away_nor_carried_through(case):
    space, architecture = case
    side = space.blocks(architecture)[-2][1].output_shape[-1]
    assert 4 <= side <= 14


@given(evolved(), st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_mutation_is_always_another_architecture(case, seed):
    space, architecture = case
    assert space.mutate(architecture, random.Random(seed)) != architecture


def test_a_crossover_takes_every_choice_from_a_parent():
    space, rng = MobileSpace(3, 10, 32), random.Random(1)
    for _ in range(50):
        a, b = space.sample(rng), space.sample(rng)
        child = space.crossover(a, b, rng)
        assert child.stem_width in (a.stem_width, b.stem_width)
        for ours, one, two in zip(child.stages, a.stages, b.stages, strict=True):
            without = ours.model_dump(exclude={"stride"})
            assert without in (one.model_dump(exclude={"stride"}), two.model_dump(exclude={"stride"}))
        assert [s.stride for s in child.stages] in ([s.stride for s in a.stages], [s.stride for s in b.stages])


@given(evolved())
@settings(max_examples=25)
def test_what_is_built_costs_what_was_counted(case):
    space, architecture = case
    graph = space.graph(architecture)
    if count_macs(graph) > 3e7:
        return  # the counting is the same for large ones, and the building slow
    model = space.build(architecture).eval()
    x = torch.randn(2, *graph.input_shape)
    with torch.inference_mode():
        assert model(x).shape == (2, space.classes)
    assert macs_by_torch(model, x[:1]) == count_macs(graph)
    assert params_when_folded(model) == count_params(graph)


@given(evolved())
@settings(max_examples=10)
def test_blocks_have_the_names_and_shapes_of_the_modules(case):
    space, architecture = case
    if count_macs(space.graph(architecture)) > 3e7:
        return
    model = space.build(architecture).eval()
    x = torch.randn(1, *space.graph(architecture).input_shape)
    with torch.inference_mode():
        for name, graph in space.blocks(architecture):
            assert tuple(x.shape[1:]) == graph.input_shape
            x = model.get_submodule(name)(x)
            assert tuple(x.shape[1:]) == graph.output_shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("squeeze", [False, True])
def test_every_block_equals_its_graph(kind, stride, squeeze):
    for kernel in KERNELS:
        for expansion in EXPANSIONS[kind]:
            for source, width in ((16, 24), (24, 24)):
                block = Block(
                    source, width, kind=kind, kernel=kernel, expansion=expansion, squeeze=squeeze, stride=stride
                ).eval()
                graph = block_graph((source, 9, 14), width, kind, kernel, expansion, squeeze, stride)
                x = torch.randn(1, source, 9, 14)
                assert tuple(block(x).shape[1:]) == graph.output_shape
                assert macs_by_torch(block, x) == count_macs(graph)
                adds = sum(op.kind == "add" for op in graph.ops)
                assert adds == int(block.residual) == int(stride == 1 and source == width)


def test_samples_are_spread_over_sizes():
    space, rng = MobileSpace(3, 10, 32), random.Random(0)
    macs = [count_macs(space.graph(space.sample(rng))) for _ in range(400)]
    for low, high in ((0, 5e6), (5e6, 2e7), (2e7, 1e8), (1e8, 1e10)):
        assert sum(low <= value < high for value in macs) >= 20


def test_the_smallest_is_smaller_than_any_sample():
    for task in ((1, 10, 8), (3, 10, 32), (3, 10, 224)):
        space, rng = MobileSpace(*task), random.Random(0)
        least = count_macs(space.graph(space.smallest()))
        assert all(least <= count_macs(space.graph(space.sample(rng))) for _ in range(300))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stem_width": 12}, "stem_width"),
        ({"resolution": 4}, "resolution"),
        ({"head_width": -8}, "head_width"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"classes": 11}, "the task has"),
    ],
)
def test_altered_architectures_are_refused(change, words):
    space = MobileSpace(3, 10, 32)
    data = space.sample(random.Random(0)).model_dump(mode="json")
    with pytest.raises(BadInput, match=words):
        space.read({**data, **change})


@pytest.mark.parametrize("change", [{"kernel": 4}, {"expansion": 5}, {"depth": 0}, {"width": 9}, {"stride": 3}])
def test_altered_stages_are_refused(change):
    space = MobileSpace(3, 10, 32)
    data = space.sample(random.Random(0)).model_dump(mode="json")
    data["stages"][1].update(change)
    with pytest.raises(BadInput, match="stage 2"):
        space.read(data)


def test_an_architecture_cannot_be_changed():
    architecture = MobileSpace(3, 10, 32).smallest()
    with pytest.raises(ValueError, match="frozen"):
        architecture.resolution = 8
    assert isinstance(architecture, MobileArchitecture)
