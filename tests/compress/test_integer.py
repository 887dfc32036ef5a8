"""Dyadic rescaling against exact rationals; integer operators against floats, which hold such small numbers exactly."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from edgewright.compress.bits.integer import Dyadic, IntegerStep, conv, dyadic, quantised, rescale
from edgewright.core.errors import BadInput, GateFailed


@given(st.floats(1e-12, 1e4), st.integers(-(2**31), 2**31 - 1))
def test_rescaling_is_the_exact_rational_to_one_step(multiplier: float, total: int) -> None:
    by = dyadic(multiplier)
    mantissa, shift = int(by.mantissa[0]), int(by.shift[0])
    got = int(rescale(np.array([[total]], dtype=np.int64), by)[0, 0])
    assert got == floor(Fraction(total * mantissa, 2**shift) + Fraction(1, 2)), "what it says, without overflow"
    exact = Fraction(total) * Fraction(multiplier)
    assert abs(got - exact) <= Fraction(1, 2) + abs(exact) / 2**31 + Fraction(1, 2**31)
    if multiplier > 2**-31:
        assert abs(Fraction(mantissa, 2**shift) / Fraction(multiplier) - 1) <= Fraction(1, 2**31)


def test_halves_are_rounded_up_on_both_sides_of_zero() -> None:
    sums = np.array([[-3, -2, -1, 0, 1, 2, 3]]).T
    assert rescale(sums, dyadic(0.5))[:, 0].tolist() == [-1, -1, 0, 0, 1, 1, 2]


def test_each_channel_has_its_own() -> None:
    by = dyadic([0.5, 0.25])
    assert by.value.tolist() == [0.5, 0.25]
    sums = np.arange(8).reshape(1, 2, 2, 2) * 4
    assert rescale(sums, by).tolist() == [[[[0, 2], [4, 6]], [[4, 5], [6, 7]]]]


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), 2.0**30])
def test_what_is_no_multiplier_is_refused(wrong: float) -> None:
    with pytest.raises(BadInput, match="dyadic number"):
        dyadic([0.5, wrong])


@pytest.mark.parametrize(
    ("groups", "stride", "padding"), [(1, (1, 1), (0, 0)), (2, (2, 1), (1, 2)), (6, (1, 3), (2, 0))]
)
def test_convolution_sums(groups: int, stride: tuple[int, int], padding: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    codes = random.integers(-128, 128, (2, 6, 7, 9), dtype=np.int32)
    weight = random.integers(-128, 128, (12, 6 // groups, 3, 2), dtype=np.int8)
    expected = functional.conv2d(
        torch.from_numpy(codes).double(), torch.from_numpy(weight).double(), None, stride, padding, 1, groups
    )
    assert np.array_equal(conv(codes, weight, stride, padding, groups), expected.numpy())


def test_a_float_that_gets_in_is_an_error() -> None:
    with pytest.raises(GateFailed, match="was given float64"):
        rescale(np.array([[1.0]]), dyadic(0.5))
    step = IntegerStep("relu", "clamp", ("input",), 1.0, 0, 255, (dyadic(0.5),))
    with pytest.raises(GateFailed, match="was given float32"):
        step.run(np.ones((1, 1), dtype=np.float32))


def test_sums_that_do_not_fit_are_an_error() -> None:
    step = IntegerStep(
        "fc", "linear", ("input",), 1.0, by=(dyadic(0.5),),
        weight=np.full((1, 70_000), 127, dtype=np.int8), bias=np.array([2**31 - 1], dtype=np.int32),
    )  # fmt: skip
    with pytest.raises(GateFailed, match="fc: its sums do not fit 32 bits"):
        step.run(np.full((1, 70_000), 255, dtype=np.int32))


def test_additions_are_rounded_apart_and_clamped() -> None:
    step = IntegerStep("add", "add", ("a", "b"), 1.0, -8, 7, (dyadic(0.5), dyadic(0.25)))
    one, two = np.array([[1, -3, 15, -15]]), np.array([[2, 2, 1, -9]])
    assert step.run(one, two).tolist() == [[2, 0, 7, -8]]  # 1 + 1, -1 + 1, 8 + 0 clamped, -7 - 2 clamped


def test_pooling_pads_with_nothing() -> None:
    step = IntegerStep("pool", "max_pool", ("x",), 1.0, stride=(2, 1), padding=(1, 0), window=(3, 2))
    codes = -np.arange(1, 41).reshape(1, 2, 5, 4)
    expected = functional.max_pool2d(torch.from_numpy(codes).double(), (3, 2), (2, 1), (1, 0))
    assert np.array_equal(step.run(codes), expected.numpy())


def test_weights_are_quantised_for_each_channel() -> None:
    weight = torch.tensor([[1.0, -0.6, 0.26], [0.0, 0.0, 0.0], [-3.0, 7.0, 2.0]])
    codes, scales = quantised(weight, 4)
    assert codes.tolist() == [[7, -4, 2], [0, 0, 0], [-3, 7, 2]]
    torch.testing.assert_close(scales, torch.tensor([1 / 7, 1.0, 1.0]))


def test_a_dyadic_number_is_its_integers() -> None:
    assert Dyadic(np.array([3]), np.array([2])).value.tolist() == [0.75]
