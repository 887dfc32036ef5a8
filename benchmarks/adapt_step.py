"""What does filtering the last blocks gain in a whole training step, beside what the multiply-adds promise?

    python benchmarks/adapt_step.py [--side 128] [--batch 8] [--blocks 2 4] [--patches 2 4] [--rounds 7] [--core 1]

ResNet-18 and MobileNetV2 (1000 classes, random weights, channels last, batch norms in evaluation mode), one thread,
fp32. A step is forward, backward and an update by SGD with momentum. The classifier always learns, the last blocks (or
all layers) with it, the rest is frozen. full: everything learns with PyTorch's backward; exact: the same layers do.
Processor time, all variants in turns, medians over the rounds; MACs as the rules count them, sums over patches too.
stored: what autograd keeps. Norms and activations still keep what the filter no longer needs; light: what is kept where
norms learn their shift only and activations keep bits (not timed).
"""

import argparse
import contextlib
import os
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from backward_speed import keep_freed_memory, timed
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.account import measure_kept, predict_kept, total
from edgewright.backward.base import Rule, swapped
from edgewright.backward.exact import BitMask, Exact, FrozenNorm
from edgewright.backward.rules.gradient_filter import GradientFilter
from edgewright.backward.survey import Site, survey


def conv_norm(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


class Residual(nn.Module):
    """A path and what goes around it."""

    def __init__(self, path: nn.Module, around: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.path, self.around, self.last = path, around, last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.path(x) + self.around(x))


def basic(into: int, out: int, stride: int) -> nn.Module:
    path = nn.Sequential(conv_norm(into, out, 3, stride), nn.ReLU(), conv_norm(out, out, 3))
    around = nn.Identity() if into == out else conv_norm(into, out, 1, stride)
    return Residual(path, around, nn.ReLU())


def inverted(into: int, out: int, stride: int, expand: int) -> nn.Module:
    wide = into * expand
    layers = [conv_norm(into, wide, 1), nn.ReLU6()] if expand > 1 else []
    layers += [conv_norm(wide, wide, 3, stride, wide), nn.ReLU6(), conv_norm(wide, out, 1)]
    path = nn.Sequential(*layers)
    return Residual(path, nn.Identity(), nn.Identity()) if into == out and stride == 1 else path


def resnet18() -> nn.Sequential:
    stem = nn.Sequential(conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    blocks = [basic(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
    return nn.Sequential(stem, *blocks, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)))


def mobilenet_v2() -> nn.Sequential:
    blocks: list[nn.Module] = []
    into = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, out, count, stride in stages:
        for i in range(count):
            blocks.append(inverted(into, out, stride if i == 0 else 1, expand))
            into = out
    tail = [conv_norm(320, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(nn.Sequential(conv_norm(3, 32, 3, 2), nn.ReLU6()), *blocks, nn.Sequential(*tail))


class Variant(NamedTuple):
    """blocks: that learn, None for all layers.   patch: of the filter, None for PyTorch's own backward."""

    blocks: int | None
    patch: int | None

    @property
    def says(self) -> tuple[str, str]:
        learns = "all" if self.blocks is None else f"last {self.blocks}"
        return learns, f"filter-{self.patch}" if self.patch else "exact"


class Prepared(NamedTuple):
    step: Callable[[], object]
    macs: int
    stored: int
    light: int


def macs(model: nn.Module, sites: tuple[Site, ...], variant: Variant, x: Tensor) -> int:
    """Forward and backward; which inputs need a gradient is seen in a forward pass."""
    needed: dict[nn.Module, bool] = {}
    hooks = [m.register_forward_pre_hook(lambda m, a: needed.update({m: a[0].requires_grad})) for m in model.modules()]
    model(x)
    for hook in hooks:
        hook.remove()
    result = 0
    for site in sites:
        layer, call = model.get_submodule(site.name), site.calls[0]
        learns = any(parameter.requires_grad for parameter in layer.parameters())
        rule = GradientFilter(variant.patch) if variant.patch and call.kind == "conv" and learns else Exact()
        if call.kind in rule.kinds:
            result += call.macs() + rule.macs(call, (needed[layer], learns, False))
    return result


def light_bytes(model: nn.Sequential, sites: tuple[Site, ...], variant: Variant, x: Tensor) -> int:
    rules: dict[str, Rule] = {}
    for site in sites:
        learns = [p.requires_grad for p in model.get_submodule(site.name).parameters()]
        kind = site.calls[0].kind
        if kind == "norm":
            rules[site.name] = FrozenNorm("bias")
            model.get_parameter(f"{site.name}.weight").requires_grad_(False)
        elif kind == "activation":
            rules[site.name] = BitMask()
        elif variant.patch and kind == "conv" and all(learns):
            rules[site.name] = GradientFilter(variant.patch)
    with swapped(model, rules):
        return total(predict_kept(model, x))


def prepare(build: Callable[[], nn.Sequential], variant: Variant, x: Tensor, stack: contextlib.ExitStack) -> Prepared:
    model = build().eval()
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model.requires_grad_(False)
    for part in list(model)[0 if variant.blocks is None else -1 - variant.blocks :]:
        part.requires_grad_(True)
    sites = survey(model, x)
    found = macs(model, sites, variant, x)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    light = light_bytes(model, sites, variant, x)
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    if variant.patch:
        rule = GradientFilter(variant.patch)
        convs = [site.name for site in sites if site.calls[0].kind == "conv"]
        learn = [name for name in convs if model.get_parameter(f"{name}.weight").requires_grad]
        stack.enter_context(swapped(model, dict.fromkeys(learn, rule)))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)
    labels = torch.arange(len(x))

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return Prepared(step, found, total(measure_kept(model, x)), light)


def rows(name: str, build: Callable[[], nn.Sequential], x: Tensor, variants: list[Variant], rounds: int) -> None:
    with contextlib.ExitStack() as stack:
        ready = {variant: prepare(build, variant, x, stack) for variant in variants}
        times = timed({str(variant): one.step for variant, one in ready.items()}, rounds)
    full = Variant(None, None)
    for variant, one in ready.items():
        ours, exact = times[str(variant)].median, Variant(variant.blocks, None)
        cells = [name, *variant.says, f"{ours:.1f}", f"{times[str(full)].median / ours:.2f}"]
        cells += [f"{ready[full].macs / one.macs:.2f}", f"{times[str(exact)].median / ours:.2f}"]
        cells += [f"{ready[exact].macs / one.macs:.2f}", f"{one.stored / 1e6:.1f}", f"{one.light / 1e6:.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


HEAD = (
    "| network | learns | backward | step ms | full / step | by MACs | exact / step | by MACs "
    "| stored MB | light MB |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--blocks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--patches", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--core", type=int, help="to run on; without, the system's choice")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    x = torch.randn(arguments.batch, 3, arguments.side, arguments.side).to(memory_format=torch.channels_last)
    variants = [Variant(blocks, patch) for blocks in (None, *arguments.blocks) for patch in (None, *arguments.patches)]
    print(HEAD)
    for name, build in (("ResNet-18", resnet18), ("MobileNetV2", mobilenet_v2)):
        rows(name, build, x, variants, arguments.rounds)


if __name__ == "__main__":
    main()
