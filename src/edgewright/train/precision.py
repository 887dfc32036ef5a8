"""What numbers a training computes in: float32, or bfloat16 where the processor multiplies those and is quicker so.

Only products (convolutions, linear layers) are in 16 bits; weights, averages, statistics, losses and the optimizer stay
in 32. bfloat16 has the range of float32 and 8 bits of it, which steps as noisy as those of a batch do not notice:
`benchmarks/training_precision.py` trains networks both ways.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from edgewright.device.here.instructions import has_bf16
from edgewright.ir.counts import depthwise

Precision = Literal["float32", "bfloat16"]

TURNS = 6  # steps in each precision before one is chosen; the first of each prepares its kernels, and is not judged
WORTH = 0.9  # of the time of float32: below it the gain is not noise
HOPELESS = 4.0  # times float32 in the first step: no kernel for it, and a second look would be dear


class Turns:
    """Which precision a step computes in: the first steps take turns, and are the measurement. Nothing is wasted.

    chosen: None until it is known.
    """

    def __init__(self, chosen: Precision | None) -> None:
        self.chosen: Precision | None = chosen
        self._seconds: dict[Precision, list[float]] = {"float32": [], "bfloat16": []}

    def take(self, gradients: Callable[[Precision], float]) -> float:
        """What `gradients`, a forward and a backward pass in the precision it is told, gives back: its loss.

        A layer that has no kernel for bfloat16 ends the turns: the same images once more, in float32.
        """
        precision, began = self.next(), time.perf_counter()
        try:
            loss = gradients(precision)
        except RuntimeError:
            if self.chosen is not None or precision == "float32":
                raise
            self.chosen = "float32"
            return gradients("float32")
        self.took(precision, time.perf_counter() - began)
        return loss

    def next(self) -> Precision:
        if self.chosen is not None:
            return self.chosen
        plain, short = self._seconds.values()
        return "float32" if len(plain) == len(short) else "bfloat16"

    def took(self, precision: Precision, seconds: float) -> None:
        """How long a forward and backward pass was."""
        if self.chosen is not None:
            return
        self._seconds[precision].append(seconds)
        plain, short = self._seconds.values()
        if len(short) == 1 and short[0] > HOPELESS * plain[0]:
            self.chosen = "float32"
        elif len(short) == TURNS:
            self.chosen = "bfloat16" if min(short[1:]) < WORTH * min(plain[1:]) else "float32"


def bfloat16_possible(device: torch.device | str) -> bool:
    """Whether bfloat16 is worth a try: on a CPU with instructions for it."""
    return torch.device(device).type == "cpu" and has_bf16()


def computing(precision: Precision, device: torch.device | str) -> torch.autocast:
    """Within it, products are computed in `precision`."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")


@contextlib.contextmanager
def prepared(model: nn.Module, precision: Precision | None) -> Iterator[None]:
    """Within it, `model` answers in float32 whatever it computes in; afterwards it is as before.

    precision: what is certain about it; with "float32" there is nothing to do.
    Depthwise convolutions stay in float32: on CPUs they are slower in bfloat16, up to seven times where they have a
    stride (measured with torch 2.13), and one of them would cost more than the other layers save.
    """
    if precision == "float32":
        yield
        return
    slow = [module for module in model.modules() if isinstance(module, nn.Conv2d) and _is_depthwise(module)]
    for module in slow:
        module.forward = _in_float32(module)  # pyright: ignore[reportAttributeAccessIssue]
    handle = model.register_forward_hook(_answer_in_float32)
    try:
        yield
    finally:
        handle.remove()
        for module in slow:
            del module.forward  # the class's own comes back


def _answer_in_float32(_module: nn.Module, _inputs: object, output: object) -> object:
    return output.float() if isinstance(output, Tensor) else output


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return depthwise(conv.groups, conv.in_channels)


def _in_float32(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    whole = conv.forward

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return whole(x.float()).to(x.dtype)

    return forward
