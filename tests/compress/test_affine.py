"""Merged maps against the layers one after the other, everywhere, in float64; and where no single map is exact."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.compress.affine import Affine, Layer, as_module, before, identity, inexact, together

SIZE = (11, 8)
Spec = tuple[int, int, tuple[int, int], tuple[int, int], tuple[int, int], int]  # source, width, kernel, stride, padding


def layers(*specs: Spec, size: tuple[int, int] = SIZE, bias: bool = True) -> list[Layer]:
    generator, made = torch.Generator().manual_seed(3), []
    for source, width, kernel, stride, padding, groups in specs:
        weight = torch.randn(width, source // groups, *kernel, generator=generator, dtype=torch.float64)
        shift = torch.randn(width, generator=generator, dtype=torch.float64) + 1 if bias else None
        result = tuple((size[a] + 2 * padding[a] - kernel[a]) // stride[a] + 1 for a in (0, 1))
        pads = padding[0] > 0, padding[1] > 0
        made.append(Layer(weight, shift, stride, padding, groups, size, (result[0], result[1]), pads))
        size = (result[0], result[1])
    return made


def run(chain: list[Layer], x: Tensor) -> Tensor:
    for one in chain:
        x = functional.conv2d(x, one.weight, one.bias, one.stride, one.padding, 1, one.groups)
    return x


def merged(chain: list[Layer]) -> Affine:
    then = identity(chain[-1].weight.shape[0], chain[-1].weight)
    for one in reversed(chain):
        assert inexact(one, then) is None
        then = before(one, then)
    return then


PW1, PW2 = (3, 6, (1, 1), (1, 1), (0, 0), 1), (6, 4, (1, 1), (1, 1), (0, 0), 1)
EXACT: dict[str, tuple[Spec, ...]] = {
    "pw dw3 pw": (PW1, (6, 6, (3, 3), (1, 1), (1, 1), 6), PW2),
    "pw dw7 s2 pw": (PW1, (6, 6, (7, 7), (2, 2), (3, 3), 6), PW2),
    "5x5 1x1": ((2, 6, (5, 5), (1, 1), (2, 2), 1), PW2),
    "strided 1x1, 3x3": ((3, 5, (1, 1), (2, 2), (0, 0), 1), (5, 4, (3, 3), (1, 1), (1, 1), 1)),
    "valid, valid": ((3, 5, (3, 2), (2, 1), (0, 0), 1), (5, 4, (2, 3), (1, 2), (0, 0), 1)),
    "rows then columns": ((3, 5, (3, 1), (1, 1), (1, 0), 1), (5, 4, (1, 3), (1, 1), (0, 1), 1)),
    "1x1 1x1 3x3 1x1": (PW1, PW2, (4, 6, (3, 3), (2, 1), (1, 1), 2), PW2),
    "3x3 s3 p1 of 10 x 7": ((2, 3, (3, 3), (3, 3), (1, 1), 1), (3, 2, (3, 3), (1, 1), (1, 1), 1)),
}


def module(chain: list[Layer], map_: Affine) -> nn.Module:
    return as_module(map_, 1, torch.float64, chain[0].source, chain[-1].result)


@pytest.mark.parametrize("name", EXACT)
def test_one_map_is_the_layers_everywhere(name: str) -> None:
    size = (10, 7) if "s3" in name else SIZE
    chain = layers(*EXACT[name], size=size)
    x = torch.randn(2, EXACT[name][0][0], *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    torch.testing.assert_close(module(chain, merged(chain))(x), run(chain, x), rtol=0, atol=1e-10)


def test_a_bordered_map_fits_other_sizes_too() -> None:
    chain = layers(*EXACT["pw dw3 pw"])
    one = module(chain, merged(chain))
    for size in ((4, 9), (1, 2)):
        x = torch.randn(1, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(one(x), run(chain, x), rtol=0, atol=1e-10)


def test_sums_of_maps_lay_the_smaller_kernel_into_the_larger() -> None:
    wide, point = layers((3, 4, (5, 3), (2, 1), (2, 1), 1)), layers((3, 4, (1, 1), (2, 1), (0, 0), 1))
    x = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    both = together(merged(wide), merged(point))
    assert both is not None
    torch.testing.assert_close(module(wide, both)(x), run(wide, x) + run(point, x), rtol=0, atol=1e-10)
    assert together(merged(wide), identity(4, x)) is None


@pytest.mark.parametrize(
    ("first", "then", "size"),
    [
        ((2, 3, (3, 3), (1, 1), (1, 1), 1), (3, 2, (3, 3), (1, 1), (1, 1), 1), SIZE),
        ((2, 3, (3, 3), (1, 1), (0, 0), 1), (3, 2, (1, 3), (1, 1), (0, 1), 1), SIZE),
        ((2, 3, (3, 3), (2, 2), (1, 1), 1), (3, 2, (3, 3), (1, 1), (1, 1), 1), (8, 11)),  # rows: 4 * 2 - 1 < 8
        ((2, 3, (1, 1), (1, 1), (1, 1), 1), (3, 2, (3, 3), (1, 1), (1, 1), 1), SIZE),  # a frame of b_1 alone
    ],
)
def test_what_no_single_convolution_is_at_the_borders_is_refused_and_is_off(first: Spec, then: Spec, size) -> None:
    chain = layers(first, then, size=size, bias=first[4] != (1, 1) or first[2] == (1, 1))
    last = before(chain[1], identity(2, chain[1].weight))
    assert "pad_first" in str(inexact(chain[0], last))
    if first[4][0] < first[2][0]:  # carried out all the same, it is wrong by far, at the border only
        x = torch.randn(1, 2, *size, dtype=torch.float64) + 1
        wrong = module(chain, before(chain[0], last))(x) - run(chain, x)
        assert wrong.abs().max() > 0.1
        edge = 1 if chain[0].stride == (2, 2) else 2
        assert wrong[..., edge:-edge, edge:-edge].abs().max() < 1e-10


def test_first_weights_are_not_drawn_from_the_global_state() -> None:
    before_ = torch.random.get_rng_state()
    chain = layers(*EXACT["pw dw3 pw"])
    module(chain, merged(chain))
    assert torch.equal(before_, torch.random.get_rng_state())
