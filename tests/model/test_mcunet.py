"""Integer networks: bit by bit what integers give, gradients straight through, accuracy of the published weights."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.device.board.memory_plan import RULES, plan_memory
from edgewright.device.resolve import make_device
from edgewright.ir.graph import count_macs
from edgewright.model.mcunet import (
    FloatHead,
    Int8Network,
    clip,
    int8_graph,
    largest_sum,
    quantised,
    read_int8,
    read_plan,
)
from model.integers import network, small

PUBLISHED = {"mcunet-5fps": (61.2, 42), "proxyless-w0.3": (53.4, 60), "mbv2-w0.35": (52.0, 51)}


def written(folder: Path, seed: int = 0) -> tuple[Int8Network, dict, dict[str, np.ndarray]]:
    cfg, arrays = small(seed)
    np.savez(folder / "net.npz", cfg=np.array(json.dumps(cfg)), **arrays)  # pyright: ignore[reportArgumentType]
    return read_int8(folder / "net.npz"), cfg, arrays


@pytest.mark.parametrize("seed", range(3))
def test_it_computes_what_integers_alone_give(seed: int, tmp_path: Path) -> None:
    model, cfg, arrays = written(tmp_path, seed)
    x = quantised(torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 3, 17, 22))))
    wanted = network(x.numpy(), cfg, arrays)
    assert np.array_equal(model(x).detach().numpy(), wanted)
    assert wanted.std() > 5
    inside = model.first(x)
    assert (inside == -128).any() and (inside > -128).any()


def test_the_published_networks_too(shared_data: Path) -> None:
    for name in PUBLISHED:
        path = shared_data / "weights_mcunet_int8" / f"{name}.npz"
        model = read_int8(path)
        arrays = dict(np.load(path))
        x = quantised(torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 64, 96))))
        assert np.array_equal(model(x).detach().numpy(), network(x.numpy(), json.loads(str(arrays["cfg"])), arrays))
        assert len(model.convolutions()) == PUBLISHED[name][1]
        assert max(largest_sum(conv) for conv in model.convolutions().values()) < 2**24


def test_as_a_graph_it_has_the_same_convolutions(tmp_path: Path) -> None:
    model, cfg, _ = written(tmp_path)
    graph = int8_graph(read_plan(tmp_path / "net.npz"), 17)
    assert read_plan(tmp_path / "net.npz") == cfg
    seen: list[tuple[int, ...]] = []
    for conv in (*model.convolutions().values(), *(m for m in model.head.modules() if isinstance(m, nn.Conv2d))):
        conv.register_forward_hook(lambda _m, _x, y: seen.append(tuple(y.shape[1:])))
    model(torch.zeros(1, cfg["first_conv"]["in_channel"], 17, 17))
    assert [graph.shapes[op.output] for op in graph.ops if op.kind == "conv"] == seen
    assert sum(op.kind == "add" for op in graph.ops) == sum(block["residual"] is not None for block in cfg["blocks"])


def test_the_published_networks_fit_the_microcontroller_they_were_published_for(shared_data: Path) -> None:
    """At the published resolutions; 12.8 M multiply-adds are published for mcunet-5fps at 96 px."""
    board = make_device("stm32f746")
    for name, side in (("mbv2-w0.35", 144), ("proxyless-w0.3", 176), ("mcunet-5fps", 96)):
        graph = int8_graph(read_plan(shared_data / "weights_mcunet_int8" / f"{name}.npz"), side)
        costs = board.costs(graph)
        assert all(costs[what].value <= limit for what, limit in board.ceilings().items())
        assert plan_memory(graph, RULES["mcu"], number_bytes=1).bytes == costs["peak_memory"].value
    assert round(count_macs(graph) / 1e6, 1) == 12.8


@pytest.mark.slow
def test_the_published_networks_are_as_accurate_on_the_sample(shared_data: Path) -> None:
    packed = np.load(shared_data / "imagenet_sample" / "imagenet1000_256.npz")
    blob, offset = packed["jpg"].tobytes(), packed["offset"]
    images = []
    for start, end in itertools.pairwise(offset):
        image = Image.open(io.BytesIO(blob[start:end])).convert("RGB")
        scale = 147 / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
        left, top = ((side - 128) // 2 for side in image.size)
        images.append(np.asarray(image.crop((left, top, left + 128, top + 128))))
    x = quantised(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    for name, (accuracy, _) in PUBLISHED.items():
        model = read_int8(shared_data / "weights_mcunet_int8" / f"{name}.npz")
        with torch.no_grad():
            found = torch.cat([model(part).argmax(1) for part in x.split(50)])
        right = float((found == torch.from_numpy(packed["label"])).float().mean()) * 100
        assert right == pytest.approx(accuracy, abs=0.5), name


@pytest.mark.parametrize("zero", [-128, -127, 0, 3, 127])
def test_clamping_before_rounding_is_rounding_before_clamping(zero: int) -> None:
    halves = torch.arange(-600, 600) / 2
    x = torch.cat([halves, torch.nextafter(halves, torch.tensor(1e9)), torch.nextafter(halves, torch.tensor(-1e9))])
    x.requires_grad_()
    ours = clip(float(zero))(x).round() + zero
    wanted = (x.round() + zero).clamp(-128, 127)
    assert torch.equal(ours, wanted)
    clip(float(zero))(x).sum().backward()
    inside = (x.round() + zero >= -128) & (x.round() + zero <= 127)
    differing = x.detach()[(x.grad == 1) != inside]
    assert {round(2 * float(value)) for value in differing} <= {-257 - 2 * zero, 255 - 2 * zero}


def test_gradients_pass_straight_through(tmp_path: Path) -> None:
    """Against the formulas of the layer by hand: a 1x1 convolution on one pixel."""
    model, cfg, _ = written(tmp_path)
    layer = model.get_submodule("blocks.1.convs.0")
    x = torch.randint(-128, 128, (5, 8, 1, 1)).float().requires_grad_()
    (layer(x) * torch.arange(1.0, 17).view(16, 1, 1)).sum().backward()
    scale = layer.get_buffer("scale")
    weight, bias = layer.get_parameter("conv.weight"), layer.get_parameter("conv.bias")
    assert x.grad is not None and weight.grad is not None
    total = (x - 3.0).flatten(1) @ weight.flatten(1).T + bias
    inside = ((total * scale).round() <= 255) & ((total * scale).round() >= 0)
    g = torch.arange(1.0, 17) * inside * scale
    torch.testing.assert_close(weight.grad.flatten(1), g.T @ (x - 3.0).flatten(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias.grad, g.sum(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.grad.flatten(1), g @ weight.flatten(1), rtol=1e-4, atol=1e-5)
    assert inside.any() and not inside.all() and cfg["blocks"][1]["convs"][0]["y_zero"] == -128


def test_a_new_head_reads_real_features(tmp_path: Path) -> None:
    model, cfg, _ = written(tmp_path)
    model.new_head(7, seed=3)
    head = model.head
    assert isinstance(head, FloatHead) and (head.in_features, head.out_features) == (8, 7)
    x = torch.randint(-128, 128, (2, 8, 1, 1)).float()
    real = (x.flatten(1) - 5) * cfg["classifier"]["x_scale"]
    torch.testing.assert_close(head(x), real @ head.weight.T + head.bias, rtol=1e-4, atol=1e-5)
    again = written(tmp_path)[0]
    again.new_head(7, seed=3)
    assert torch.equal(again.head.get_parameter("weight"), head.weight)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for path in (tmp_path / "other.npz", tmp_path / "none.npz"):
        with pytest.raises(BadInput, match="is not an integer network"):
            read_int8(path)
