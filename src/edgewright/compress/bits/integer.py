r"""Integer-only arithmetic, bit by bit as a device without floats does it; and a network of such operators, as data.

A *code* q stands for the number s q; s, its scale, is a float that never enters the arithmetic. A convolution gives
sums in int32 of codes times weight codes, plus a bias code. To give such a sum r the scale of the next layer it is
multiplied by a *dyadic number* m / 2^e, m an integer of 31 bits, 1 <= e <= 62:

    y = clamp( floor( (r m + 2^(e-1)) / 2^e ) )           m / 2^e = s_in s_w / s_out to a relative 2^-31

in int64, one multiplication, one addition, one shift; halves are rounded up. A sum of two tensors gives each its own
dyadic number, rounds each, adds, and clamps (HAWQ's code does not clamp there, and leaves the range).

Everything runs in numpy with integer types only; a float that gets in is an error.
Source: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", ICML 2021, arXiv:2011.10680, section 3; Jacob et al.,
CVPR 2018, arXiv:1712.05877. Checked against: exact rationals, float simulation, and ONNX Runtime, bit by bit
(tests/compress/test_integer.py, tests/compress/test_integer_onnx.py).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from edgewright.core.errors import BadInput, GateFailed

Integers = NDArray[np.integer]
Kind = Literal["conv", "linear", "add", "mean", "max_pool", "flatten", "clamp"]
MANTISSA_BITS = 31
MOST_SHIFT = 62
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Dyadic:
    """Multipliers m / 2^e, one for each channel or one for all. mantissa, shift: (C,) or (1,), int64."""

    mantissa: Integers
    shift: Integers

    @property
    def value(self) -> NDArray[np.float64]:
        """m / 2^e as floats: for people and for tests."""
        return np.ldexp(self.mantissa.astype(np.float64), -self.shift)


def dyadic(multiplier: ArrayLike) -> Dyadic:
    """The dyadic numbers nearest to positive multipliers: to a relative 2^-31, from 2^-31 on; smaller ones to 2^-63, so
    that they are off by 2^-32 at most times a sum of 32 bits.
    Errors: BadInput for a multiplier that is not positive, or is 2^30 or more."""
    numbers = np.atleast_1d(np.asarray(multiplier, dtype=np.float64))
    if not (np.isfinite(numbers).all() and (numbers > 0).all() and (numbers < 2**30).all()):
        raise BadInput(f"a dyadic number must lie between 0 and 2^30 (got {numbers.min():g} to {numbers.max():g})")
    _, exponent = np.frexp(numbers)
    shift = np.minimum(MANTISSA_BITS - exponent, MOST_SHIFT).astype(np.int64)
    mantissa = np.floor(np.ldexp(numbers, shift) + 0.5).astype(np.int64)
    return Dyadic(mantissa, shift)


def quantised(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes, of the weight's shape and type, and scales, one for each output channel: weight ~ codes * scales.

    s = max|w| / (2^(b-1) - 1) over the channel; codes = clamp(round(w / s), -2^(b-1), 2^(b-1) - 1).
    A channel of zeros has the largest scale of the others (1 where there is none).
    """
    top = 2 ** (bits - 1) - 1
    flat = weight.detach().reshape(weight.shape[0], -1)
    largest = flat.abs().amax(1)
    other = largest.max() if largest.max() > 0 else torch.ones_like(largest.max())
    scales = torch.where(largest > 0, largest, other) / top
    codes = (flat / scales[:, None]).round().clamp(-top - 1, top)
    return codes.reshape(weight.shape), scales


def rescale(sums: Integers, by: Dyadic) -> Integers:
    """floor((r m + 2^(e-1)) / 2^e) for sums (N, C, ...) of at most 32 bits."""
    whole(sums)
    shape = (1, -1, *(1,) * (sums.ndim - 2))
    mantissa, shift = by.mantissa.reshape(shape), by.shift.reshape(shape)
    return (sums.astype(np.int64) * mantissa + (np.int64(1) << (shift - 1))) >> shift


def whole(values: Integers) -> None:
    """Refuses floats, which would make the simulation a lie."""
    if not np.issubdtype(values.dtype, np.integer):
        raise GateFailed(f"integer-only arithmetic was given {values.dtype}")


def conv(codes: Integers, weight: Integers, stride: tuple[int, int], padding: tuple[int, int], groups: int) -> Integers:
    """Sums of a convolution: codes (N, C, H, W), weight (M, C / groups, k_h, k_w), to (N, M, H', W') int64.
    The padding holds the code 0."""
    whole(codes)
    whole(weight)
    high, wide = padding
    padded = np.pad(codes.astype(np.int64), ((0, 0), (0, 0), (high, high), (wide, wide)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1]]  # (N, C, H', W', k_h, k_w)
    batch, _, rows, columns = windows.shape[:4]
    grouped = windows.reshape(batch, groups, -1, rows, columns, *weight.shape[2:])
    flat = grouped.transpose(1, 0, 3, 4, 2, 5, 6).reshape(groups, batch * rows * columns, -1)
    kernels = weight.astype(np.int64).reshape(groups, weight.shape[0] // groups, -1)
    sums = flat @ kernels.transpose(0, 2, 1)  # (groups, N H' W', M / groups)
    return sums.transpose(1, 0, 2).reshape(batch, rows, columns, -1).transpose(0, 3, 1, 2)


@dataclass(frozen=True)
class IntegerStep:
    """One operator on codes. inputs: earlier steps, or "input".   by: one dyadic number for each input.
    low, high: what the result is clamped to.   weight: int8 codes; bias: int32 codes in the scale of the sums.
    scale: of the result, for people; the arithmetic does not read it.   window: of a pooling."""

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    scale: float
    low: int = INT32.min
    high: int = INT32.max
    by: tuple[Dyadic, ...] = ()
    weight: Integers | None = None
    bias: Integers | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    window: tuple[int, int] = (1, 1)

    def sums(self, codes: Integers) -> Integers:
        """What it adds up before rescaling; GateFailed where that does not fit 32 bits."""
        if self.kind == "mean":
            total = codes.astype(np.int64).sum((2, 3))
        else:
            assert self.weight is not None
            assert self.bias is not None
            image = codes if self.kind == "conv" else codes[:, :, None, None]
            weight = self.weight if self.kind == "conv" else self.weight[:, :, None, None]
            total = conv(image, weight, self.stride, self.padding, self.groups)
            total = total + self.bias.astype(np.int64)[:, None, None]
            total = total if self.kind == "conv" else total[:, :, 0, 0]
        if total.size and (total.min() < INT32.min or total.max() > INT32.max):
            raise GateFailed(f"{self.name}: its sums do not fit 32 bits ({total.min()} to {total.max()})")
        return total

    def run(self, *values: Integers) -> Integers:
        for value in values:
            whole(value)
        first = values[0]
        if self.kind == "flatten":
            return first.reshape(len(first), -1)
        if self.kind == "max_pool":
            result = self._largest(first)
        elif self.kind == "add":
            result = rescale(first, self.by[0]) + rescale(values[1], self.by[1])
        elif self.kind == "clamp":
            result = rescale(first, self.by[0])
        else:
            result = rescale(self.sums(first), self.by[0])
        return np.clip(result, self.low, self.high).astype(np.int32)

    def _largest(self, codes: Integers) -> Integers:
        high, wide = self.padding
        edges = ((0, 0), (0, 0), (high, high), (wide, wide))
        padded = np.pad(codes.astype(np.int64), edges, constant_values=INT32.min)
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.window, axis=(2, 3))
        return windows[:, :, :: self.stride[0], :: self.stride[1]].max((4, 5))


@dataclass(frozen=True)
class IntegerNetwork:
    """Steps in running order; the last one is the output, its codes times `steps[-1].scale` are the logits.

    input_scale, low, high: how an image becomes codes, q = clamp(floor(x / scale + 1/2)).   shape: (C, H, W).
    """

    steps: tuple[IntegerStep, ...]
    input_scale: float
    low: int
    high: int
    shape: tuple[int, ...]

    def codes(self, images: NDArray[np.floating]) -> Integers:
        """Images (N, C, H, W) as codes: the one place where floats come in."""
        steps = np.floor(images.astype(np.float64) / self.input_scale + 0.5)
        return np.clip(steps, self.low, self.high).astype(np.int32)

    def run(self, codes: Integers) -> Integers:
        """The codes of the logits (N, classes), int32."""
        return self.trace(codes)[self.steps[-1].name]

    def trace(self, codes: Integers) -> dict[str, Integers]:
        """The codes that every step gives."""
        values: dict[str, Integers] = {"input": codes}
        for step in self.steps:
            values[step.name] = step.run(*(values[name] for name in step.inputs))
        return values

    def logits(self, images: NDArray[np.floating]) -> NDArray[np.float64]:
        """Images to logits, integers only in between."""
        return self.run(self.codes(images)).astype(np.float64) * self.steps[-1].scale

    @property
    def weight_bytes(self) -> int:
        """Weights at 8 bits and biases at 32, as this network holds them; fewer bits are packed by whoever ships it."""
        tensors = [tensor for step in self.steps for tensor in (step.weight, step.bias) if tensor is not None]
        return sum(tensor.nbytes for tensor in tensors)
