"""How fast is the filtered backward of a convolution beside PyTorch's own, and how far from what memory allows?

    python benchmarks/backward_speed.py [--batches 8 32] [--patches 2 4 8] [--rounds 9] [--layers 3x3 1x1 dw] [--core 1]

One thread, fp32, layers without bias, all in turns in one run; medians over the rounds, of processor time, which other
programs change least. Each side has the better of the two memory formats (c: contiguous, l: channels last), chosen for
the backward and for the step on its own. Each runs three times in a row; the first time, with the caches full of what
ran before, is not counted: it takes up to a millisecond longer, as it does between a network's layers.
backward: gradients of input and weight.   step: forward and backward; the filtered forward pools the input for later.
of least: the ratio of the least times.   formulas: the paper's formulas in plain torch, for the same gradients.
Freed memory stays with the process (glibc): handing it back and taking it again would cost both sides the same page
faults, up to three times the filtered backward itself.
official: that operator's ratio on another machine, batch 8 and 32; over it: by medians / by least times.
memory: reading the output gradient and the weight once and writing both gradients once, each timed on tensors of that
size.   products: the two matrix products of the patches alone, where they are matrix products.   bound: filtered
backward over memory and products together.
"""

import argparse
import ctypes
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.base import swapped
from edgewright.backward.kernels import product
from edgewright.backward.rules.gradient_filter import GradientFilter


class Layer(NamedTuple):
    """official: the published operator's backward ratio by batch and patch."""

    name: str
    into: int
    out: int
    side: int
    kernel: int
    groups: int
    official: dict[int, dict[int, float]]


def ratios(at_8: tuple[float, ...], at_32: tuple[float, ...]) -> dict[int, dict[int, float]]:
    return {8: dict(zip((2, 4, 8), at_8, strict=True)), 32: dict(zip((2, 4, 8), at_32, strict=True))}


LAYERS = (
    Layer("3x3 64-64 @56", 64, 64, 56, 3, 1, ratios((6.2, 12.3, 19.5), (5.1, 15.7, 25.0))),
    Layer("3x3 128-128 @28", 128, 128, 28, 3, 1, ratios((6.4, 12.3, 17.7), (4.9, 10.6, 14.7))),
    Layer("3x3 256-256 @14", 256, 256, 14, 3, 1, ratios((6.9, 10.9, 11.2), (6.6, 12.2, 13.8))),
    Layer("3x3 512-512 @7", 512, 512, 7, 3, 1, ratios((3.9, 6.6, 7.5), (5.4, 4.8, 5.6))),
    Layer("1x1 96-576 @14", 96, 576, 14, 1, 1, ratios((1.5, 3.8, 3.9), (0.9, 1.9, 2.3))),
    Layer("1x1 320-1280 @7", 320, 1280, 7, 1, 1, ratios((2.0, 1.8, 2.1), (0.9, 0.9, 1.1))),
    Layer("dw3x3 192 @28", 192, 192, 28, 3, 192, ratios((0.7, 0.8, 1.3), (0.8, 1.2, 1.4))),
    Layer("dw3x3 576 @14", 576, 576, 14, 3, 576, ratios((0.4, 0.2, 0.4), (0.7, 1.0, 1.2))),
)
SETTLING = 3  # rounds before those that count, in which the process comes to own all the memory it will need
FORMATS = {"c": torch.contiguous_format, "l": torch.channels_last}


class Time(NamedTuple):
    """Milliseconds."""

    median: float
    least: float


class Formulas(torch.autograd.Function):
    """Gradient filtering as its paper has it, in a few lines of torch: what our operator has to beat on one machine.
    The weight is summed over its taps in the forward pass, and the sum kept, as published."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, patch: int, groups: int) -> Tensor:
        ctx.patch, ctx.groups, ctx.shapes = patch, groups, (x.shape, weight.shape)
        sums = functional.avg_pool2d(x, patch, ceil_mode=True) * patch**2
        ctx.save_for_backward(sums, weight.sum((2, 3), keepdim=True))
        return functional.conv2d(x, weight, padding=weight.shape[2] // 2, groups=groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (x, weight), (batch, _, height, width) = ctx.saved_tensors, ctx.shapes[0]
        g = functional.avg_pool2d(gradients[0], ctx.patch, ceil_mode=True)
        few = functional.conv_transpose2d(g, weight, groups=ctx.groups)
        gx = few.repeat_interleave(ctx.patch, 2).repeat_interleave(ctx.patch, 3)[:, :, :height, :width]
        apart = g.view(batch, ctx.groups, -1, *g.shape[2:]), x.view(batch, ctx.groups, -1, *x.shape[2:])
        gw = torch.einsum("bgohw,bgihw->goi", *apart).reshape(*ctx.shapes[1][:2], 1, 1)
        return gx, gw.expand(ctx.shapes[1]).contiguous(), None, None


class Case(NamedTuple):
    """A layer with one backward, dense or another, and a forward pass that has been made."""

    run: Callable[[], Tensor]
    wanted: tuple[Tensor, Tensor]
    gradient: Tensor
    result: Tensor

    def backward(self) -> None:
        torch.autograd.grad(self.result, self.wanted, self.gradient, retain_graph=True)

    def step(self) -> None:
        torch.autograd.grad(self.run(), self.wanted, self.gradient)


def case(layer: Layer, batch: int, order: torch.memory_format, patch: int | None, plain: bool = False) -> Case:
    conv = nn.Conv2d(layer.into, layer.out, layer.kernel, padding=layer.kernel // 2, groups=layer.groups, bias=False)
    conv.to(memory_format=order)  # pyright: ignore[reportCallIssue]
    x = torch.randn(batch, layer.into, layer.side, layer.side).to(memory_format=order).requires_grad_()
    model = nn.Sequential(conv)

    def run() -> Tensor:
        if patch and plain:
            return Formulas.apply(x, conv.weight, patch, layer.groups)  # pyright: ignore[reportReturnType]
        with swapped(model, {"0": GradientFilter(patch)}) if patch else nullcontext():
            return model(x)

    result = run()
    return Case(run, (x, conv.weight), torch.randn_like(result, memory_format=order), result)


def memory_work(layer: Layer, batch: int) -> Callable[[], object]:
    x, g = torch.randn(batch * layer.into * layer.side**2), torch.randn(batch * layer.out * layer.side**2)
    weight = torch.randn(layer.out * layer.into // layer.groups * layer.kernel**2)
    return lambda: (g.sum(), x.zero_(), weight.sum(), weight.zero_())


def product_work(layer: Layer, batch: int, patch: int) -> Callable[[], object]:
    if layer.groups > 1:
        return lambda: None
    rows = batch * (-(-layer.side // patch)) ** 2
    x, g, weight = torch.randn(rows, layer.into), torch.randn(rows, layer.out), torch.randn(layer.out, layer.into)
    return lambda: (product(g, weight), product(g.T, x))


def timed(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, Time]:
    """All works in turns, each three times in a row, of which the first is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(-SETTLING, rounds):
        for name, work in works.items():
            for again in range(3):
                start = time.process_time()
                work()
                if again and turn >= 0:
                    times[name].append(1e3 * (time.process_time() - start))
    return {name: Time(statistics.median(found), min(found)) for name, found in times.items()}


def row(layer: Layer, batch: int, patches: list[int], rounds: int) -> list[str]:
    works: dict[str, Callable[[], object]] = {"memory": memory_work(layer, batch)}
    works |= {f"products {patch}": product_work(layer, batch, patch) for patch in patches}
    for order, memory_format in FORMATS.items():
        for patch in (None, *patches):
            one = case(layer, batch, memory_format, patch)
            works |= {f"backward {patch} {order}": one.backward, f"step {patch} {order}": one.step}
        for patch in patches:
            works[f"formulas {patch} {order}"] = case(layer, batch, memory_format, patch, plain=True).backward
    found = timed(works, rounds)

    def best(what: str, patch: int | None) -> tuple[Time, str]:
        return min((found[f"{what} {patch} {order}"], order) for order in FORMATS)

    lines = []
    (dense, dense_order), (dense_step, _) = best("backward", None), best("step", None)
    for patch in patches:
        (ours, order), (formulas, _), (step, _) = (best(what, patch) for what in ("backward", "formulas", "step"))
        official = layer.official.get(batch, {}).get(patch)
        memory, products = found["memory"].median, found[f"products {patch}"].median
        ratio, of_least = dense.median / ours.median, dense.least / ours.least
        cells = [layer.name, batch, patch, f"{dense.median:.2f} {dense_order}", f"{ours.median:.2f} {order}"]
        cells += [f"{ratio:.1f}", f"{of_least:.1f}", f"{formulas.median / ours.median:.1f}"]
        cells += [official, f"{ratio / official:.1f} / {of_least / official:.1f}"] if official else ["", ""]
        cells += [f"{memory:.2f}", f"{products:.2f}", f"{ours.median / (memory + products):.1f}"]
        cells += [f"{dense_step.median:.2f}", f"{step.median:.2f}", f"{dense_step.median / step.median:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


HEAD = (
    "| layer | batch | patch | dense backward ms | filtered ms | ratio | of least | formulas / filtered | official "
    "| over official | memory ms | products ms | bound | dense step ms | filtered step ms | ratio |"
)


def keep_freed_memory() -> None:
    """Ask glibc for it; other systems' allocators are left as they are."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(-4, 0)  # M_MMAP_MAX: no allocation of its own pages
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--patches", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--layers", nargs="+", default=[""], help="beginnings of the layers' names")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--core", type=int, help="to run on; without, the system's choice")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    print(HEAD, "|---" * (HEAD.count("|") - 1) + "|", sep="\n")
    for layer in (one for one in LAYERS if one.name.startswith(tuple(arguments.layers))):
        for line in map(partial(row, layer, patches=arguments.patches, rounds=arguments.rounds), arguments.batches):
            print(*line, sep="\n", flush=True)


if __name__ == "__main__":
    main()
