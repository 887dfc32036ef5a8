"""How fast is the backward of a linear layer in a few Walsh bases beside PyTorch's own, and how far from the floor?

    python benchmarks/walsh_speed.py [--batch 8] [--rounds 9] [--orders 2 4 6 8] [--only 16x16] [--core 1]

One thread, fp32, layers without bias, all in turns in one run, each three times in a row of which the first is not
counted; medians over the rounds, of processor time, which other programs change least. Layers over tokens, and 1x1
convolutions in both memory formats (channels first and last).
backward: gradients of input and weight.   step: forward and backward; the forward projects the input.
floor: reading the output gradient and the input once and writing the input's gradient, each timed on tensors of that
size.   products: the two matrix products on the rows that the bases leave, alone.   over both: backward over floor and
products together.   official: that operator's ratio on another machine, where it is known.
Freed memory stays with the process (glibc): handing it back and taking it again would cost both sides the same page
faults, about half as long as the backward in 3 bases itself.
"""

import argparse
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from backward_speed import Case, keep_freed_memory, timed
from torch import Tensor, nn

from edgewright.backward.base import swapped
from edgewright.backward.kernels import product
from edgewright.backward.rules.walsh import Walsh

Work = Callable[[], object]


class Layer(NamedTuple):
    """kind: tokens [B, side^2, into], or a 1x1 convolution, channels first or last.   official: ratio by order."""

    kind: str
    side: int
    into: int
    out: int
    official: dict[int, float]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.side}x{self.side} {self.into}-{self.out}"


TOKENS = (
    Layer("tokens", 16, 448, 1792, {2: 1.53, 4: 0.46, 8: 0.12}),
    Layer("tokens", 16, 384, 1536, {2: 1.22, 4: 0.40, 8: 0.10}),
    Layer("tokens", 32, 96, 384, {}),
    Layer("tokens", 56, 48, 192, {2: 0.22, 4: 0.07, 8: 0.02}),
    Layer("tokens", 14, 192, 768, {}),
    Layer("tokens", 7, 448, 1792, {}),
)
SHAPES = ((16, 448, 1792), (14, 96, 576), (28, 32, 192), (56, 48, 192), (7, 160, 960))
CONVS = tuple(Layer(f"1x1 {order}", *shape, {}) for shape in SHAPES for order in ("first", "last"))


def case(layer: Layer, batch: int, order: int | None) -> Case:
    if layer.kind == "tokens":
        one: nn.Module = nn.Linear(layer.into, layer.out, bias=False)
        x = torch.randn(batch, layer.side**2, layer.into)
    else:
        one = nn.Conv2d(layer.into, layer.out, 1, bias=False)
        x = torch.randn(batch, layer.into, layer.side, layer.side)
        x = x.to(memory_format=torch.channels_last if layer.kind.endswith("last") else torch.contiguous_format)
    x.requires_grad_()
    model = nn.Sequential(one)

    def run() -> Tensor:
        with swapped(model, {"0": Walsh(order)}) if order else nullcontext():
            return model(x)

    result = run()
    return Case(run, (x, one.get_parameter("weight")), torch.randn_like(result), result)


def floor(layer: Layer, batch: int) -> Work:
    x, g = (torch.randn(batch * layer.side**2, channels) for channels in (layer.into, layer.out))
    gx = torch.empty_like(x)
    return lambda: (g.sum(), x.sum(), gx.zero_())


def products(layer: Layer, batch: int, order: int) -> Work:
    patches, side = -(-layer.side // 8), min(8, layer.side)
    rows = batch * patches**2 * sum(max(0, min(order - r, side)) for r in range(side))
    x, g, weight = torch.randn(rows, layer.into), torch.randn(rows, layer.out), torch.randn(layer.out, layer.into)
    return lambda: (product(g, weight), product(g.T, x))


def rows(layer: Layer, batch: int, orders: list[int], rounds: int) -> list[str]:
    works: dict[str, Work] = {"floor": floor(layer, batch)}
    works |= {f"products {order}": products(layer, batch, order) for order in orders}
    for order in (None, *orders):
        one = case(layer, batch, order)
        works |= {f"backward {order}": one.backward, f"step {order}": one.step}
    found = {name: time.median for name, time in timed(works, rounds).items()}
    dense, dense_step = found["backward None"], found["step None"]
    lines = []
    for order in orders:
        ours, step = found[f"backward {order}"], found[f"step {order}"]
        bound = found["floor"] + found[f"products {order}"]
        cells = [layer.name, order * (order + 1) // 2, f"{dense:.2f}", f"{ours:.2f}", f"{dense / ours:.1f}"]
        cells += [layer.official.get(order, ""), f"{found['floor']:.2f}", f"{found[f'products {order}']:.2f}"]
        cells += [f"{ours / bound:.1f}", f"{dense_step:.2f}", f"{step:.2f}", f"{dense_step / step:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


HEAD = (
    "| layer | bases | dense backward ms | ours ms | ratio | official | floor ms | products ms | over both "
    "| dense step ms | our step ms | ratio |"
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--orders", type=int, nargs="+", default=[2, 4, 6, 8])
    options.add_argument("--only", default="", help="layers whose name has this in it")
    options.add_argument("--core", type=int, help="the processor to stay on, where the system can do that")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    if chosen.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {chosen.core})
    print(HEAD)
    print("|" + "---|" * HEAD.count(" | ") + "---|")
    for layer in (*TOKENS, *CONVS):
        if chosen.only in layer.name:
            print("\n".join(rows(layer, chosen.batch, chosen.orders, chosen.rounds)), flush=True)


if __name__ == "__main__":
    main()
