r"""From a trained network to one of integers only: what a processor without floats runs, simulated bit by bit.

    weights       symmetric, one scale for each output channel        s_w = max|w| / (2^(b-1) - 1)
    activations   symmetric; b bits with a sign                       s = max|x| / (2^(b-1) - 1)
                  b bits without one, where nothing is negative       s = max x / (2^b - 1)
    biases        int32 in the scale of the sums                      s_b = s_in s_w
    rescaling     dyadic, s_in s_w / s_out for each channel           `integer.rescale`
    activation    ReLU and ReLU6 are the clamp that follows           0 ... min(2^b - 1, 6 / s)
    mean          sum of the pixels, rescaled by s_in / (H W s_out)

What a layer reads has that layer's bits; what layers of different bits read, the most of them. Ranges are the largest
numbers, or a percentile of the magnitudes, over samples. The logits are sums of 32 bits in one scale.

Differs from HAWQ-V3: outputs of a ReLU have no sign at 8 bits either (256 levels, as x86 multiplies them; the authors'
hardware could not); the mean is rounded like all else; sums of tensors are clamped; halves are rounded up.
Differs from Jacob et al.: no zero points.
Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv:1712.05877; Yao et al., "HAWQ-V3", ICML 2021, arXiv:2011.10680. Checked against: a simulation in floats
of the same scheme, ONNX Runtime bit by bit, and the accuracy of the float network on digits
(tests/compress/test_integer_only.py).
"""

from collections.abc import Mapping
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from edgewright.compress.bits.integer import INT32, IntegerNetwork, IntegerStep, Kind, dyadic, quantised
from edgewright.compress.wiring import INPUT, OUTPUT, Step, Wiring, trace
from edgewright.core.errors import BadInput

CLAMPS = {"relu": "relu", "relu_": "relu", "hardtanh": "relu6", "hardtanh_": "relu6", "relu6": "relu6"}
KINDS: dict[str, Kind] = {
    "conv2d": "conv",
    "linear": "linear",
    "add": "add",
    "add_": "add",
    "adaptive_avg_pool2d": "mean",
    "mean": "mean",
    "max_pool2d": "max_pool",
    "flatten": "flatten",
    "view": "flatten",
    "reshape": "flatten",
    "dropout": "flatten",
}
SAME_SCALE = ("max_pool", "flatten")  # they pass codes on as they are


def quantise(
    model: nn.Module, samples: Tensor, *, bits: Mapping[str, int] | int = 8, percentile: float = 100.0
) -> IntegerNetwork:
    """The integer network of `model`, batch norms folded before, with ranges from `samples`.

    Args:
        samples: images (N, C, H, W), float; a few hundred.
        bits: 2 to 8, of all layers, or by name of convolution and linear layer (8 where none is given).
        percentile: of the magnitudes of each activation that its range holds; 100 is all.
    Errors: BadInput for an operator that has no integer form here, named; and for bits out of range.
    """
    wiring = trace(model, samples)
    ranges, values = {}, {INPUT: samples}
    with torch.no_grad():
        for step in wiring.steps.values():
            values[step.name] = _float(model, step, [values[name] for name in step.inputs])
        for name, value in values.items():
            ranges[name] = _range(value, percentile)
    maker = _Maker(model, wiring, ranges, bits)
    for step in wiring.steps.values():
        maker.add(step)
    scale, low, high = maker.scales[INPUT]
    return IntegerNetwork(tuple(maker.steps), scale, low, high, tuple(samples.shape[1:]))


def _range(value: Tensor, percentile: float) -> tuple[float, float]:
    """The smallest number, and the magnitude that is to be representable."""
    magnitudes = value.abs().double().flatten()
    top = magnitudes.max() if percentile >= 100 else torch.from_numpy(np.percentile(magnitudes.numpy(), [percentile]))
    return value.min().item(), top.item()


def _float(model: nn.Module, step: Step, values: list[Tensor]) -> Tensor:
    """A step as the network computes it; BadInput for one that has no integer form."""
    first = values[0]
    if step.operator in ("conv2d", "linear") and step.own == step.owner and _plain(model, step):
        return model.get_submodule(step.own)(first)
    if step.operator in CLAMPS and step.arguments[1:] == ((0, 6) if "hardtanh" in step.operator else ()):
        return first.relu() if CLAMPS[step.operator] == "relu" else first.clamp(0, 6)
    if step.operator in ("add", "add_") and len(values) == 2 and not step.keywords and first.shape == values[1].shape:
        return first + values[1]
    if step.operator in ("adaptive_avg_pool2d", "mean") and first.dim() == 4 and prod(step.shape[2:]) == 1:
        if step.operator == "adaptive_avg_pool2d" or sorted(axis % 4 for axis in step.arguments[1]) == [2, 3]:
            return first.mean((2, 3)).reshape(len(first), *step.shape[1:])
    elif step.operator == "max_pool2d" and all(side == 1 for side in _pairs(step)[3]):
        window, stride, padding, _ = _pairs(step)
        return torch.nn.functional.max_pool2d(first, window, stride, padding).reshape(len(first), *step.shape[1:])
    elif KINDS.get(step.operator) == "flatten" and (len(step.shape) == 2 or step.shape == tuple(first.shape)):
        return first.reshape(len(first), *step.shape[1:])
    hint = "; fold batch norms first" if step.operator == "batch_norm" else ""
    raise BadInput(
        f"{step.operator} in {step.own or 'the network'} has no form in integers here{hint} (known: convolution, "
        "linear layer, ReLU, ReLU6, addition, max pooling, mean over the image, flatten)"
    )


def _plain(model: nn.Module, step: Step) -> bool:
    layer = model.get_submodule(step.own)
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and set(layer.dilation) == {1}
    return isinstance(layer, nn.Linear) and len(step.shape) == 2


def _pairs(step: Step) -> list[tuple[int, int]]:
    """Window, stride, padding, dilation of a max pooling."""
    given = list(step.arguments[1:5])
    given += [None] * (4 - len(given))
    window = tuple(given[0]) * (2 // len(given[0]))
    pairs = [window, window, (0, 0), (1, 1)]
    for place, argument in enumerate(given):
        if argument:
            pairs[place] = tuple(argument) * (2 // len(argument))
    return pairs


class _Maker:
    """Makes integer steps of a wiring's, one after the other."""

    def __init__(
        self, model: nn.Module, wiring: Wiring, ranges: Mapping[str, tuple[float, float]], bits: Mapping[str, int] | int
    ) -> None:
        self.model, self.wiring, self.ranges, self.bits = model, wiring, ranges, bits
        self.steps: list[IntegerStep] = []
        self.names = {INPUT: INPUT}  # by which integer step a step is computed
        self.scales: dict[str, tuple[float, int, int]] = {}  # scale, low, high of its codes
        first = [step.name for step in wiring.steps.values() if INPUT in step.inputs]
        self.scales[INPUT] = self._scale(INPUT, self._width(first), clamped=None)

    def layer_bits(self, name: str) -> int:
        width = self.bits if isinstance(self.bits, int) else self.bits.get(name, 8)
        if not 2 <= width <= 8:
            raise BadInput(f"{name}: {width} bits; from 2 to 8 are possible")
        return width

    def _width(self, readers: list[str]) -> int:
        """The most bits that a reading layer wants; 8 where only other operators read it."""
        wanted = [0]
        for name in readers:
            step = self.wiring.steps.get(name)
            if step is not None and step.operator in ("conv2d", "linear"):
                wanted.append(self.layer_bits(step.own))
            elif step is not None and (step.operator in CLAMPS or KINDS[step.operator] in SAME_SCALE):
                wanted.append(self._width(list(step.readers)))
            elif step is not None:
                wanted.append(8)
        return max(wanted) or 8

    def _scale(self, name: str, width: int, clamped: str | None) -> tuple[float, int, int]:
        smallest, top = self.ranges[name]
        signed = clamped is None and smallest < 0
        low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if signed else (0, 2**width - 1)
        scale = top / high if top > 0 else 1.0
        if clamped == "relu6":
            high = min(high, int(np.floor(6 / scale + 0.5)))
        return scale, low, high

    def add(self, step: Step) -> None:
        source = step.inputs[0]
        if step.operator in CLAMPS and self.names[source] == step.name:  # done with the operator before it
            return
        kind = "clamp" if step.operator in CLAMPS else KINDS[step.operator]
        inputs = tuple(self.names[name] for name in step.inputs)
        if kind == "flatten" and self.wiring.shape(source) == step.shape:  # dropout
            self.names[step.name] = inputs[0]
            return
        if kind == "conv" and any(made.name == inputs[0] and made.kind == "mean" for made in self.steps):
            raise BadInput(f"{step.own} convolves a mean over the image, which has no form in integers here")
        if kind in SAME_SCALE:
            self.scales[step.name] = self.scales[inputs[0]]
            scale, low, high = self.scales[step.name]
            window, stride, padding, _ = _pairs(step) if kind == "max_pool" else [(1, 1), (1, 1), (0, 0), (1, 1)]
            made = IntegerStep(step.name, kind, inputs, scale, low, high, window=window, stride=stride, padding=padding)
        else:
            made = self.rescaling(step, kind, inputs)
        self.steps.append(made)
        self.names[step.name] = made.name

    def rescaling(self, step: Step, kind: Kind, inputs: tuple[str, ...]) -> IntegerStep:
        """A step whose result has a scale of its own, with the activation behind it."""
        last = step
        if len(step.readers) == 1 and step.readers[0] != OUTPUT:
            reader = self.wiring.steps[step.readers[0]]
            last = reader if reader.operator in CLAMPS else step
        clamped = CLAMPS.get(last.operator)
        arguments: dict = {}
        coming = [self.scales[name][0] for name in inputs]
        if kind in ("conv", "linear"):
            arguments, coming = self.layer(step, kind, coming[0])
        if kind == "mean":
            coming = [coming[0] / prod(self.wiring.shape(step.inputs[0])[2:])]
        if OUTPUT in last.readers:
            scale, low, high = float(np.max(coming)), INT32.min if clamped is None else 0, INT32.max
        else:
            scale, low, high = self._scale(last.name, self._width(list(last.readers)), clamped)
        self.names[last.name] = last.name
        self.scales[last.name] = (scale, int(low), int(high))
        by = tuple(dyadic(np.asarray(each) / scale) for each in coming)
        return IntegerStep(last.name, kind, inputs, scale, int(low), int(high), by, **arguments)

    def layer(self, step: Step, kind: Kind, scale: float) -> tuple[dict, list]:
        """Codes of weight and bias, and the scale of the sums, channel by channel."""
        layer = self.model.get_submodule(step.own)
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        codes, scales = quantised(layer.weight.detach().double(), self.layer_bits(step.own))
        sums = scales.numpy() * scale
        bias = np.zeros(len(sums)) if layer.bias is None else layer.bias.detach().double().numpy()
        rounded = np.floor(bias / sums + 0.5)
        if np.abs(rounded).max() > INT32.max:
            raise BadInput(f"{step.own}: its bias is too large for its weights to be held in 32 bits")
        found: dict = {"weight": codes.numpy().astype(np.int8), "bias": rounded.astype(np.int32)}
        if isinstance(layer, nn.Conv2d):
            found |= {
                "stride": (layer.stride[0], layer.stride[1]),
                "padding": tuple(int(side) for side in layer.padding),
                "groups": layer.groups,
            }
        return found, [sums]
