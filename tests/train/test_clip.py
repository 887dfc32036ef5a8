"""The running clip cuts what is unusual, and nothing else."""

import math

import pytest
import torch

from edgewright.train.clip import RunningClip


def parameters(norm: float) -> list[torch.nn.Parameter]:
    """Two parameters whose gradients together have this norm."""
    found = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    for parameter, share in zip(found, (0.6, 0.8), strict=True):
        parameter.grad = torch.full_like(parameter, share * norm / math.sqrt(parameter.numel()))
    return found


def norm_of(some: list[torch.nn.Parameter]) -> float:
    return math.sqrt(sum(float(p.grad.square().sum()) for p in some if p.grad is not None))


def test_the_equation() -> None:
    clip, usual = RunningClip(2.0), 0.0
    for norm in (5.0, 4.0, 30.0, 30.0, 30.0, 0.5, 7.0):
        some = parameters(norm)
        most = 2.0 * usual or math.inf
        assert clip(some) == pytest.approx(norm, rel=1e-4)
        assert norm_of(some) == pytest.approx(min(norm, most), rel=1e-4)
        usual = min(norm, most) if not usual else 0.9 * usual + 0.1 * min(norm, most)
        assert clip.usual == pytest.approx(usual, rel=1e-4)


def test_it_is_blind_to_scale() -> None:
    """All gradients a thousand times as large: the same cuts."""
    small, large = RunningClip(1.5), RunningClip(1.5)
    for norm in (1.0, 3.0, 0.2, 9.0):
        a, b = parameters(norm), parameters(1000 * norm)
        small(a), large(b)
        assert norm_of(b) == pytest.approx(1000 * norm_of(a), rel=1e-4)


def test_a_norm_that_is_no_number_is_not_remembered() -> None:
    clip = RunningClip(2.0)
    clip(parameters(3.0))
    clip(parameters(math.inf))
    assert clip.usual == pytest.approx(3.0)


def test_a_zero_gradient_to_begin_with_does_no_harm() -> None:
    clip = RunningClip(2.0)
    clip(parameters(0.0))
    some = parameters(4.0)
    clip(some)
    assert norm_of(some) == pytest.approx(4.0, rel=1e-4) and clip.usual == pytest.approx(4.0, rel=1e-4)


def test_there_is_a_most_from_the_first_step_on() -> None:
    clip = RunningClip(2.0, most=3.0)
    for norm, taken in ((50.0, 3.0), (50.0, 3.0), (1.0, 1.0)):
        some = parameters(norm)
        clip(some)
        assert norm_of(some) == pytest.approx(taken, rel=1e-4)
    assert clip.usual == pytest.approx(0.9 * 3.0 + 0.1)
