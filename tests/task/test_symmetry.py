"""Whether a flip keeps the target, asked of data whose answer is known."""

import pytest
import torch
from torch import Tensor

from edgewright.task.symmetry import FEWEST, flip_spoils


def _arrows(count: int, generator: torch.Generator, *, colours: int = 3) -> tuple[Tensor, Tensor]:
    """Bright left halves are one class, bright right halves another, in noise."""
    classes = torch.randint(0, 2, (count,), generator=generator)
    maps = torch.rand(count, colours, 14, 20, generator=generator)
    maps[classes == 0, :, :, :10] += 1
    maps[classes == 1, :, :, 10:] += 1
    return maps, classes


def _lamps(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bright above or below: as well told when flipped."""
    maps, classes = _arrows(count, generator)
    return maps.transpose(2, 3).contiguous(), classes


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("colours", [1, 3])
def test_left_and_right_are_spoilt(generator: torch.Generator, colours: int) -> None:
    words = flip_spoils(*_arrows(300, generator, colours=colours))
    assert words is not None and "not used in training" in words


def test_above_and_below_are_not(generator: torch.Generator) -> None:
    assert flip_spoils(*_lamps(300, generator)) is None


def test_what_is_not_told_at_a_glance_says_nothing(generator: torch.Generator) -> None:
    maps = torch.rand(300, 3, 16, 16, generator=generator)
    assert flip_spoils(maps, torch.randint(0, 5, (300,), generator=generator)) is None


def test_one_in_ten_that_turns_is_not_the_rest(generator: torch.Generator) -> None:
    """Nine classes of ten are told by colour: what a flip spoils is less than it gives."""
    maps, sides = _arrows(1000, generator)
    classes = torch.randint(0, 10, (1000,), generator=generator)
    maps[classes > 0] = torch.rand(int((classes > 0).sum()), 3, 14, 20, generator=generator)
    for number in range(1, 10):
        maps[classes == number, number % 3] += number / 3
    classes[(classes == 0) & (sides == 1)] = 10
    assert flip_spoils(maps, classes) is None


def test_a_handful_says_nothing(generator: torch.Generator) -> None:
    assert flip_spoils(*_arrows(FEWEST - 1, generator)) is None


def test_whole_numbers_and_any_labels(generator: torch.Generator) -> None:
    maps, classes = _arrows(200, generator)
    assert flip_spoils((maps * 100).to(torch.uint8), classes * 7 + 3) is not None
