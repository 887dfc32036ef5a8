"""Learning on integer networks: scaled steps are those of the real weights; what a sparse step keeps and moves."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from edgewright.backward.account import measure_kept, predict_kept
from edgewright.backward.base import swapped
from edgewright.backward.rules.int8 import norm_ratios, scale_gradients
from edgewright.backward.rules.sparse_update import Scheme, convolutions, memory_bits, scheme_rules
from edgewright.backward.survey import Site, survey
from edgewright.model.mcunet import Int8Network, int8_network, quantised, read_int8
from model.integers import small


def build(seed: int = 0) -> tuple[Int8Network, Tensor, Tensor]:
    model = int8_network(*small(seed))
    model.new_head(5)
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (4, 3, 17, 22)))
    return model, quantised(images), torch.tensor([0, 3, 1, 4])


def loss(model: nn.Module, x: Tensor, y: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
    scores = torch.func.functional_call(model, weights or {}, (x,))
    return nn.functional.cross_entropy(scores, y)


def test_a_scaled_step_is_the_step_of_the_real_weights() -> None:
    model, x, y = build()
    scale: dict[str, Tensor] = {}
    for name, conv in model.convolutions().items():
        scale[f"{name}.weight"] = conv.weight_scale.view(-1, 1, 1, 1)
        scale[f"{name}.bias"] = conv.weight_scale * conv.x_scale
    whole = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    real = {name: (whole[name] * factor).requires_grad_() for name, factor in scale.items()}
    loss(model, x, y, {name: real[name] / factor for name, factor in scale.items()}).backward()
    torch.optim.SGD(real.values(), lr=0.01).step()
    loss(model, x, y).backward()
    scale_gradients(model)
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    for name, parameter in model.named_parameters():
        if name in scale:
            step = (parameter.detach() - whole[name]) * scale[name]
            wanted = real[name].detach() - whole[name] * scale[name]
            error = float((parameter.detach() * scale[name] - real[name].detach()).norm() / real[name].detach().norm())
            assert error < 1e-5 and step.abs().sum() > 0, name
            largest = float(real[name].detach().abs().max())
            torch.testing.assert_close(step, wanted, rtol=2e-2, atol=1e-6 * largest)


def spread(ratios: dict[str, float]) -> float:
    return float(np.std(list(ratios.values())))


def test_norms_are_aligned(shared_data: Path) -> None:
    model = read_int8(shared_data / "weights_mcunet_int8" / "mcunet-5fps.npz")
    model.new_head(10)
    packed = np.load(shared_data / "imagenet_sample" / "imagenet1000_256.npz")
    offset = packed["offset"][:13]
    images = [Image.open(io.BytesIO(packed["jpg"][a:b].tobytes())) for a, b in itertools.pairwise(offset)]
    pixels = np.stack([np.asarray(image.convert("RGB").resize((128, 128))) for image in images])
    loss(model, quantised(torch.from_numpy(pixels).permute(0, 3, 1, 2)), torch.arange(12) % 10).backward()
    before = norm_ratios(model)
    scale_gradients(model)
    after = norm_ratios(model)
    assert len(after) == 2 * 42
    assert np.mean(list(before.values())) - np.mean(list(after.values())) > 5  # orders of magnitude
    assert spread(before) > 1.8 and spread(after) < 0.9


def scheme(sites: tuple[Site, ...]) -> Scheme:
    names = [site.name for site in convolutions(sites)]
    return Scheme(4, {names[3]: 1 / 4, names[4]: 1 / 2})


def learning(model: nn.Module, trained: tuple[str, ...]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def test_only_the_chosen_slices_move() -> None:
    model, x, y = build()
    sites = survey(model, x)
    rules, trained = scheme_rules(scheme(sites), sites, model)
    learning(model, trained)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    with swapped(model, rules):
        for _ in range(3):
            optimizer.zero_grad()
            loss(model, x, y).backward()
            scale_gradients(model)
            optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    names = [site.name for site in convolutions(sites)]
    assert moved == {*(f"{name}.bias" for name in names[2:]), *(f"{n}.weight" for n in names[3:5]), *trained[-2:]}
    wide, deep = (model.state_dict()[f"{n}.weight"] != before[f"{n}.weight"] for n in names[3:5])
    assert wide.flatten(2).any(2).any(0).sum() == 2 and deep.flatten(1).any(1).sum() == 8


def test_bytes_kept_are_the_papers_memory() -> None:
    """Inputs and masks as the paper counts them. On top: 8-bit weights, which a device has anyway and PyTorch has only
    as floats, and the masks of shortcuts, which the paper leaves out."""
    model, x, _ = build()
    sites = survey(model, x)
    plan = scheme(sites)
    rules, trained = scheme_rules(plan, sites, model)
    learning(model, trained)
    with swapped(model, rules):
        kept = measure_kept(model, x)
        assert predict_kept(model, x) == kept
    by_layer = {name: sum(one.bytes for one in kept if one.layer == name) for name in rules}
    convs = convolutions(sites)[2:]
    behind = convs[1:]  # through which gradients pass on
    weights = sum(site.calls[0].weight[0] * int(np.prod(site.calls[0].weight[1:])) for site in behind)
    shortcut = by_layer["blocks.1.clip"]
    assert shortcut == x.shape[0] * 8 * 9 * 11 // 8
    stored = sum(by_layer.values()) - weights - shortcut
    biases = 32 * sum(site.calls[0].weight[0] for site in convs)
    slices = 8 * (16 * 2 + 8 * 25)
    assert stored * 8 == x.shape[0] * (memory_bits(plan, convolutions(sites)) - biases - slices)


def test_gradients_from_bytes_and_bits_are_those_of_floats() -> None:
    model, x, y = build()
    sites = survey(model, x)
    names = [site.name for site in convolutions(sites)]
    rules, trained = scheme_rules(Scheme(6, dict.fromkeys(names, 1.0)), sites, model)
    learning(model, trained)
    parameters = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(loss(model, x, y), parameters)
    with swapped(model, rules):
        ours = torch.autograd.grad(loss(model, x, y), parameters)
    assert len(parameters) == 14
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize(("biases", "shares", "kilobytes"), [
    (22, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1 / 8, 39: 1 / 4}, 100),
    (12, dict.fromkeys(range(30, 42), 1), 448),
])  # fmt: skip
def test_the_published_schemes_need_what_was_published(
    biases: int, shares: dict[int, float], kilobytes: int, shared_data: Path
) -> None:
    model = read_int8(shared_data / "weights_mcunet_int8" / "mcunet-5fps.npz")
    convs = convolutions(survey(model, torch.zeros(1, 3, 128, 128)))[:-1]  # without the classifier
    plan = Scheme(biases, {convs[index].name: share for index, share in shares.items()})
    assert memory_bits(plan, convs) / 8 / 1024 == pytest.approx(kilobytes, abs=0.5)
