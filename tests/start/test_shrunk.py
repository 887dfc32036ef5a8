"""The space of what a start can be made into: graphs are what is built, and what stays has the start's weights."""

from random import Random

import pytest
import torch
from tests.start.networks import Residual, living

from edgewright.core.errors import BadInput
from edgewright.core.tensors import TensorSpec
from edgewright.ir.from_torch import read
from edgewright.ir.graph import count_macs
from edgewright.model.heads.pool import PoolHead
from edgewright.model.heads.pyramid import PyramidHead
from edgewright.start.shrunk import ShrunkSpace
from edgewright.start.start import Opened, Start

START = Start(source="toy", sha256="ab" * 32, size=64)


def space_of(size: tuple[int, int] = (64, 64), channels: int = 3, **normalised) -> ShrunkSpace:
    torch.manual_seed(0)
    inputs = (TensorSpec(name="input", shape=(channels, *size)),)
    return ShrunkSpace(inputs, PoolHead(5), Opened(START, living(Residual()), Residual), **normalised)


@pytest.fixture(scope="module")
def space() -> ShrunkSpace:
    return space_of()


def test_whole_it_is_the_start_but_for_the_head(space: ShrunkSpace) -> None:
    model, start = space.build(space.whole()).eval(), space.opened.network
    x = torch.randn(2, 3, 64, 64)
    y = start.pool(start.blocks(start.stem(x))).flatten(1)
    head = model.get_submodule("head")
    torch.testing.assert_close(model(x), head(y[:, :, None, None]), rtol=1e-4, atol=1e-5)


def test_graphs_count_what_the_built_network_runs(space: ShrunkSpace) -> None:
    rng = Random(1)
    for _ in range(12):
        architecture = space.mutate(space.sample(rng), rng)
        model = space.build(architecture)
        example = torch.zeros(1, 3, *space.resolution(architecture))
        assert count_macs(space.graph(architecture)) == read(model, example).macs
        assert model(torch.zeros(2, 3, *space.resolution(architecture))).shape == (2, 5)


def test_what_is_left_out_is_left_out_and_the_rest_is_the_starts(space: ShrunkSpace) -> None:
    whole = space.whole()
    architecture = whole.model_copy(update={"dropped": (1, 4), "parts": 5})
    model = space.build(architecture).eval()
    assert [name for name, _ in space.stem(architecture)] == ["stem", "blocks_1", "blocks_2"]
    start, x = space.opened.network, torch.randn(1, 3, 64, 64)
    wanted = start.blocks[2](start.blocks[1](start.stem(x)))
    parts = [model.get_submodule(name) for name in ("stem", "blocks_1", "blocks_2")]
    for part in parts:
        x = part(x)
    torch.testing.assert_close(x, wanted, rtol=1e-4, atol=1e-5)


def test_narrowed_inside_it_keeps_the_largest_channels(space: ShrunkSpace) -> None:
    widths = tuple((8, 4) for _ in space.whole().widths)
    model = space.build(space.whole().model_copy(update={"widths": widths}))
    conv = model.get_submodule("blocks_0.blocks.0.conv1")
    own = space.opened.network.blocks[0].conv1.weight
    assert conv.weight.shape == (8, 16, 3, 3)
    assert all(any(torch.equal(row, other) for other in own) for row in conv.weight)


def test_it_survives_json_and_refuses_what_is_not_its_own(space: ShrunkSpace) -> None:
    rng = Random(2)
    first, second = space.sample(rng), space.sample(rng)
    child = space.crossover(first, second, rng)
    assert space.read(child.model_dump(mode="json")) == child
    for change, words in (
        ({"start": "other"}, "start is other"),
        ({"parts": 1}, "parts is 1"),
        ({"dropped": (0,)}, "part 0 of this start cannot be left out"),
    ):
        with pytest.raises(BadInput, match=words):
            space.read({**child.model_dump(mode="json"), **change})


def test_grey_images_are_read_as_colour_whose_channels_are_alike() -> None:
    grey = space_of(channels=1)
    model, x = grey.build(grey.whole()).eval(), torch.randn(2, 1, 64, 64)
    wanted = grey.opened.network.stem(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(model.get_submodule("stem")(x), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(BadInput, match="takes maps of 3 channels, and the task's have 4"):
        space_of(channels=4)


def test_maps_of_another_normalisation_are_scaled_to_the_starts() -> None:
    other = space_of(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.5)))
    model = other.build(other.whole()).eval()
    wanted = other.opened.network.stem(pixels)  # this start was not normalised at all
    found = model.get_submodule("stem")(model.get_submodule("rescale")((pixels - mean) / std))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_oblong_maps_and_the_smallest(space: ShrunkSpace) -> None:
    oblong = space_of(size=(96, 48))
    smallest = oblong.smallest()
    height, width = oblong.resolution(smallest)
    assert height > width
    assert count_macs(oblong.graph(smallest)) < count_macs(oblong.graph(oblong.whole())) / 20


def test_maps_of_classes_are_read_at_several_joints() -> None:
    """A pyramid on a start, oblong, narrowed and cut: its graph is what is built, and every weight learns."""
    inputs, rng = (TensorSpec(name="input", shape=(3, 64, 48)),), Random(3)
    own = ShrunkSpace(inputs, PyramidHead(5), Opened(START, living(Residual()), Residual))
    for architecture in (own.whole(), own.smallest(), *(own.mutate(own.sample(rng), rng) for _ in range(5))):
        height, width = own.resolution(architecture)
        model, x = own.build(architecture), torch.randn(2, 3, height, width)
        assert count_macs(own.graph(architecture)) == read(model, x[:1]).macs
        y = model(x)
        assert y.shape == (2, 5, height, width)
        torch.nn.functional.cross_entropy(y, torch.randint(5, (2, height, width))).backward()
        learned = [name for name, weight in model.named_parameters() if weight.grad is not None]
        assert len(learned) == len(list(model.parameters()))


class Tokens(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(48, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed(x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)).mean((1, 2))


class Odd(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.cumsum(x, 2))


@pytest.mark.parametrize(("network", "words"), [(Tokens, "it runs unfold, which"), (Odd, "it runs cumsum, which")])
def test_what_cannot_be_made_to_fit_is_refused_by_what_it_runs(network: type, words: str) -> None:
    space_ = (TensorSpec(name="input", shape=(3, 64, 64)),)
    with pytest.raises(BadInput, match=words):
        own = ShrunkSpace(space_, PoolHead(5), Opened(START, network(), network))
        own.graph(own.whole())
