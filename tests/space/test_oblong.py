"""Maps that are far from square: built as counted, never squared, never strided away."""

import json
import math
import random

import pytest
import torch

from edgewright.core.errors import BadInput
from edgewright.core.tensors import sides
from edgewright.space.resolve import spaces

SIZES = [(49, 10), (8, 512), (512, 8), (9, 64)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sorted(spaces()))
def test_every_block_gives_what_the_graph_says(name: str, size: tuple[int, int]) -> None:
    space = spaces()[name].for_images(2, 3, size)
    architecture = space.smallest()
    model, blocks = space.build(architecture).eval(), space.blocks(architecture)
    height, width = space.resolution(architecture)
    assert (height > width) == (size[0] > size[1]) and min(height, width) >= 8
    assert blocks[0][1].input_shape == (2, height, width) == space.graph(architecture).input_shape
    x = torch.randn(2, 2, height, width)
    with torch.inference_mode():
        whole = model(x)
        for block, graph in blocks:
            x = model.get_submodule(block)(x)
            assert tuple(x.shape[1:]) == graph.output_shape
    torch.testing.assert_close(x, whole)
    assert space.read(json.loads(architecture.to_json())) == architecture


@pytest.mark.parametrize("size", SIZES)
def test_mobile_keeps_the_shape_and_two_pixels(size: tuple[int, int]) -> None:
    space, rng = spaces()["mobile"].for_images(1, 2, size), random.Random(4)
    for _ in range(40):
        architecture = space.sample(rng)
        height, width = sides(architecture.resolution)
        assert (height > width) == (size[0] > size[1])
        shares = height / size[0], width / size[1]
        assert all(share <= 1.0 for share in shares) and min(height, width) >= 8
        _, height, width = space.stem(architecture)[-1][1].output_shape
        assert min(height, width) >= 2 and max(height, width) >= 4


def test_a_square_is_written_by_its_side_and_an_oblong_map_by_both() -> None:
    square, oblong = (spaces()["nb201"].for_images(3, 10, size).smallest() for size in ((32, 32), (49, 10)))
    assert json.loads(square.to_json())["resolution"] == 32
    assert json.loads(oblong.to_json())["resolution"] == [49, 10]
    assert square.key() != oblong.key()


def test_an_architecture_of_another_shape_is_refused() -> None:
    tall, wide = (spaces()["nb201"].for_images(3, 10, size) for size in ((49, 10), (10, 49)))
    with pytest.raises(BadInput, match=r"resolution is \(49, 10\); for this task it is \(10, 49\)"):
        wide.read(json.loads(tall.smallest().to_json()))
    data = json.loads(tall.smallest().to_json())
    with pytest.raises(BadInput, match="a side of 600 px is not from 8 to 512"):
        tall.read({**data, "resolution": [49, 600]})
    for size in ((49, 7), (600, 49)):
        with pytest.raises(BadInput, match=f"8 to 512 px, not {size[0] if size[0] > 512 else size[1]} px"):
            spaces()["mobile"].for_images(3, 10, size)


def test_halvings_of_an_oblong_map() -> None:
    """49 x 10: the longer side comes to 4 to 14 pixels, the shorter one keeps 2; 8 x 512 stays as long as that asks."""
    space = spaces()["mobile"].for_images(1, 2, (49, 10))
    for stride in space.stem_strides:
        for count in space._halvings((49, 10), stride):
            long, short = (math.ceil(math.ceil(side / stride) / 2**count) for side in (49, 10))
            assert 4 <= long <= 14 and short >= 2
    assert spaces()["mobile"].for_images(1, 2, (8, 512))._halvings((8, 512), 2) == [1]
