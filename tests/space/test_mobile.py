"""Any architecture that the space gives builds, runs, round-trips, and costs what the counters say."""

import json
import random
from collections import Counter
from collections.abc import Iterator

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from edgewright.core.errors import BadInput
from edgewright.export.onnx import export_onnx
from edgewright.ir.graph import Graph, count_macs, count_params
from edgewright.ir.op import Kind as OpKind
from edgewright.model.blocks import Block
from edgewright.space.spaces.mobile import EXPANSIONS, KERNELS, KINDS, MobileArchitecture, MobileSpace, block_graph

SIDES = (8, 17, 28, 32, 50, 64, 96, 224)
TASKS = st.tuples(st.sampled_from([1, 3, 4]), st.sampled_from([2, 10]), st.sampled_from(SIDES))


@st.composite
def evolved(draw):
    """A space and an architecture that was sampled, crossed and mutated."""
    space = MobileSpace.for_images(*draw(TASKS))
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
    space, rng = MobileSpace.for_images(3, 10, 32), random.Random(1)
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
        assert model(x).shape == (2, space.head.outputs)
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
    space, rng = MobileSpace.for_images(3, 10, 32), random.Random(0)
    macs = [count_macs(space.graph(space.sample(rng))) for _ in range(400)]
    for low, high in ((0, 5e6), (5e6, 2e7), (2e7, 1e8), (1e8, 1e10)):
        assert sum(low <= value < high for value in macs) >= 20


def test_the_smallest_is_smaller_than_any_sample():
    for task in ((1, 10, 8), (3, 10, 32), (3, 10, 224)):
        space, rng = MobileSpace.for_images(*task), random.Random(0)
        least = count_macs(space.graph(space.smallest()))
        assert all(least <= count_macs(space.graph(space.sample(rng))) for _ in range(300))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stem_width": 12}, "stem_width"),
        ({"resolution": 4}, "resolution"),
        ({"head_width": -8}, "head_width"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"outputs": 11}, "outputs is 11; for this task it is 10"),
        ({"resolution": 31}, "resolution is 31; for this task it is 32 or 28 or 24"),
        ({"stem_stride": 2}, "stem_stride is 2; for this task it is 1"),
        ({"stages": []}, "stages"),
    ],
)
def test_altered_architectures_are_refused(change, words):
    space = MobileSpace.for_images(3, 10, 32)
    data = space.sample(random.Random(0)).model_dump(mode="json")
    with pytest.raises(BadInput, match=words):
        space.read({**data, **change})


@pytest.mark.parametrize("change", [{"kernel": 4}, {"expansion": 5}, {"depth": 0}, {"width": 9}, {"stride": 3}])
def test_altered_stages_are_refused(change):
    space = MobileSpace.for_images(3, 10, 32)
    data = space.sample(random.Random(0)).model_dump(mode="json")
    data["stages"][1].update(change)
    with pytest.raises(BadInput, match="stage 2"):
        space.read(data)


def test_networks_that_the_task_has_no_room_for_are_refused():
    space = MobileSpace.for_images(3, 10, 32)
    data = {**space.sample(random.Random(0)).model_dump(mode="json"), "resolution": 32}
    stages = data["stages"]
    with pytest.raises(BadInput, match="number of stages is 8; for this task it is 4"):
        space.read({**data, "stages": stages * 2})
    with pytest.raises(BadInput, match="stages with stride 2 is 4; for this task it is 2 or 3"):
        space.read({**data, "stages": [{**stage, "stride": 2} for stage in stages]})


@pytest.mark.parametrize("side", [4, 7, 513])
def test_sides_out_of_range_are_refused(side):
    with pytest.raises(BadInput, match=f"8 to 512 px, not {side} px"):
        MobileSpace.for_images(3, 10, side)


def test_every_side_has_networks_whose_last_map_is_sensible():
    rng = random.Random(0)
    for side in range(8, 225):
        space = MobileSpace.for_images(3, 10, side)
        assert all(8 <= resolution <= side for resolution in space.resolutions)
        for architecture in (space.smallest(), space.sample(rng)):
            assert space.read(json.loads(architecture.to_json())) == architecture
            assert 4 <= space.blocks(architecture)[-2][1].output_shape[-1] <= 14


def test_samples_grow_no_narrower_with_depth():
    space, rng = MobileSpace.for_images(3, 10, 32), random.Random(0)
    for _ in range(300):
        widths = [stage.width for stage in space.sample(rng).stages]
        assert widths == sorted(widths)


def folded(model: nn.Module, example: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, nn.Module]]:
    """Weight and bias of every layer in running order, batch norms folded in by hand."""
    layers: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: layers.append(module))
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
    ]
    model(example)
    for hook in hooks:
        hook.remove()
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.BatchNorm2d):
            continue
        weight, bias = layer.weight, layer.bias
        if isinstance(after, nn.BatchNorm2d):
            scale = after.weight / torch.sqrt(after.running_var + after.eps)
            weight, bias = weight * scale[:, None, None, None], after.bias - after.running_mean * scale
        yield weight, bias, layer


def by_graph(graph: Graph, model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the graph computes with the model's weights, op by op."""
    weights = folded(model, x)
    tensors = {0: x}
    for op in graph.ops:
        first, *others = (tensors[index] for index in op.inputs)
        if op.kind == "conv":
            weight, bias, layer = next(weights)
            assert (op.kernel, op.stride, op.groups) == (layer.kernel_size[0], layer.stride[0], layer.groups)
            y = functional.conv2d(first, weight, bias, op.stride, op.kernel // 2, 1, op.groups)
        elif op.kind == "linear":
            weight, bias, _ = next(weights)
            y = functional.linear(first, weight, bias)
        elif op.kind in ("add", "mul"):
            y = first + others[0] if op.kind == "add" else first * others[0]
        elif op.kind == "global_pool":
            y = first.mean((2, 3), keepdim=True)
        else:
            y = {"relu": functional.relu, "hardsigmoid": functional.hardsigmoid, "flatten": torch.flatten}[op.kind](
                first, *([1] if op.kind == "flatten" else [])
            )
        tensors[op.output] = y
    assert next(weights, None) is None
    return tensors[graph.ops[-1].output]


def unsettled(model: nn.Module) -> nn.Module:
    """Batch norms as after training, so that a wrong folding or a missing ReLU shows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2),
                (module.weight, 0.5, 2), (module.bias, -0.5, 0.5),
            ):  # fmt: skip
                nn.init.uniform_(tensor, low, high)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("squeeze", [False, True])
def test_a_block_computes_what_its_graph_says(kind, squeeze):
    for expansion in EXPANSIONS[kind]:
        for source, width, stride in ((16, 24, 1), (16, 16, 2), (24, 24, 1)):
            block = unsettled(
                Block(source, width, kind=kind, kernel=5, expansion=expansion, squeeze=squeeze, stride=stride).double()
            )
            graph = block_graph((source, 9, 14), width, kind, 5, expansion, squeeze, stride)
            x = torch.randn(2, source, 9, 14, dtype=torch.float64)
            with torch.inference_mode():
                torch.testing.assert_close(block(x), by_graph(graph, block, x))


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 28), (3, 32), (1, 64), (3, 96)])
def test_a_network_computes_what_its_graph_says(channels, side):
    space, rng = MobileSpace.for_images(channels, 10, side), random.Random(side)
    architecture = space.smallest()
    for _ in range(3):
        model = unsettled(space.build(architecture).double())
        x = torch.randn(2, *space.graph(architecture).input_shape, dtype=torch.float64)
        with torch.inference_mode():
            torch.testing.assert_close(model(x), by_graph(space.graph(architecture), model, x))
        for _ in range(8):
            architecture = space.mutate(architecture, rng)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_for_photographs_cost_what_was_counted(channels):
    space, rng = MobileSpace.for_images(channels, 10, 224), random.Random(channels)
    for _ in range(8):
        architecture = space.sample(rng)
        graph = space.graph(architecture)
        model, x = space.build(architecture).eval(), torch.randn(1, *graph.input_shape)
        assert macs_by_torch(model, x) == count_macs(graph)
        assert params_when_folded(model) == count_params(graph)


@pytest.mark.slow
def test_the_exported_file_has_the_operators_of_the_graph(tmp_path):
    space, rng = MobileSpace.for_images(3, 10, 32), random.Random(0)
    kinds: dict[OpKind, str] = {
        "conv": "Conv",
        "linear": "Gemm",
        "add": "Add",
        "mul": "Mul",
        "relu": "Relu",
        "hardsigmoid": "HardSigmoid",
        "global_pool": "GlobalAveragePool",
        "flatten": "Reshape",
    }
    stages = [
        {
            "kind": kind,
            "depth": 2,
            "width": 16,
            "kernel": 3,
            "expansion": 1,
            "squeeze": number % 2 == 0,
            "stride": stride,
        }
        for number, (kind, stride) in enumerate(zip(KINDS, (1, 2, 2, 1), strict=True))
    ]
    data = space.sample(rng).model_dump(mode="json")
    for expansion in (1, 2):
        wide = [{**stage, "expansion": min(expansion, max(EXPANSIONS[stage["kind"]]))} for stage in stages]
        architecture = space.read({**data, "stages": wide})
        graph = space.graph(architecture)
        export_onnx(space.build(architecture), graph.input_shape, tmp_path / "model.onnx", {})
        found = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
        assert found == Counter(kinds[op.kind] for op in graph.ops)


def test_an_architecture_cannot_be_changed():
    architecture = MobileSpace.for_images(3, 10, 32).smallest()
    with pytest.raises(ValueError, match="frozen"):
        architecture.resolution = 8
    assert isinstance(architecture, MobileArchitecture)
