"""What gradient filtering loses where it must learn from nothing: two convolutions begun anew behind a trained trunk.

    python benchmarks/filter_from_scratch.py --data cifar10.npz --seeds 0 1 2

A network of four convolutions learns CIFAR-10 for 4 epochs. Then the first two are frozen and the last two (64-128-128
on 8 x 8 pixels), their norms and the head are drawn anew and learn for 8 epochs (SGD, momentum 0.9, 0.05, cosine), with
exact gradients, with filtered ones, or not at all (norms and head alone). Recovered: the share of what exact gradients
gain over norms and head alone. Where exact gradients gain under 10 points the comparison says nothing, and it says so.
"""

import argparse
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.base import swapped
from edgewright.backward.rules.gradient_filter import GradientFilter
from edgewright.core.npz import read_npz
from edgewright.core.seed import derive
from edgewright.train.clock import learning_rate

PATCHES = (2, 4, 8)
RATE, BATCH, EPOCHS = 0.05, 64, 8
LEAST_GAIN = 10  # points, for the comparison to say anything

Data = tuple[Tensor, Tensor]


def conv(into: int, out: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def trunk() -> nn.Sequential:
    return nn.Sequential(conv(3, 32, 2), conv(32, 64, 2))


def top() -> nn.Sequential:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    return nn.Sequential(OrderedDict(first=conv(64, 128, 1), second=conv(128, 128, 1), head=head))


def learn(model: nn.Module, data: Data, epochs: int, seed: int) -> None:
    """What requires a gradient, by SGD with a cosine."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE, momentum=0.9)
    steps = len(data[1]) // BATCH
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(data[1]), generator=random)[: steps * BATCH].split(BATCH)
        for step, rows in enumerate(order):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate((epoch + step / steps) / epochs, peak=RATE, warmup=0.02)
            optimizer.zero_grad()
            functional.cross_entropy(model(data[0][rows]), data[1][rows]).backward()
            optimizer.step()


@torch.no_grad()
def run(model: nn.Module, images: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(part) for part in images.split(500)])


def accuracy(model: nn.Module, data: Data) -> float:
    return 100 * float((run(model, data[0]).argmax(1) == data[1]).float().mean())


def begun_anew(features: Data, held_out: Data, patch: int | None, seed: int, *, convolutions: bool = True) -> float:
    """Accuracy of the two convolutions after learning from where the seed begins them.   patch: None: exactly."""
    torch.manual_seed(derive(seed, "anew"))
    model = top()
    layers = {"first.0": model.first[0], "second.0": model.second[0]}  # pyright: ignore[reportIndexIssue]
    for layer in layers.values():
        layer.requires_grad_(convolutions)
    rules = {} if patch is None else {name: GradientFilter(patch) for name in layers}
    with swapped(model, rules) if rules else nullcontext():
        learn(model, features, EPOCHS, derive(seed, "order"))
    return accuracy(model, held_out)


def scores(train: Data, test: Data, seed: int) -> dict[str, float]:
    torch.manual_seed(derive(seed, "trunk"))
    below = trunk()
    learn(nn.Sequential(below, top()), train, 4, derive(seed, "trunk order"))
    features, held_out = ((run(below, images), labels) for images, labels in (train, test))
    found = {"norms and head": begun_anew(features, held_out, None, seed, convolutions=False)}
    found["exact"] = begun_anew(features, held_out, None, seed)
    return found | {f"filter-{patch}": begun_anew(features, held_out, patch, seed) for patch in PATCHES}


def part(data: dict[str, np.ndarray], which: str, count: int) -> Data:
    images = torch.from_numpy(data[f"x_{which}"][:count]).permute(0, 3, 1, 2).float()
    return (images - 120) / 64, torch.from_numpy(data[f"y_{which}"][:count]).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=".npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--tests", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = read_npz(args.data)
    train, test = part(data, "train", args.images), part(data, "test", args.tests)
    names = ("norms and head", "exact", *(f"filter-{patch}" for patch in PATCHES))
    print(f"| seed | {' | '.join(names)} | recovered |", "|---" * (len(names) + 2) + "|", sep="\n", flush=True)
    shares = []
    for seed in args.seeds:
        found = scores(train, test, seed)
        gain = found["exact"] - found["norms and head"]
        shares.append([(found[f"filter-{patch}"] - found["norms and head"]) / gain for patch in PATCHES])
        cells = " | ".join(f"{found[name]:.1f}" for name in names)
        told = " / ".join(f"{share:.2f}" for share in shares[-1])
        weak = "" if gain >= LEAST_GAIN else f" (exact gains only {gain:.1f} points: says nothing)"
        print(f"| {seed} | {cells} | {told}{weak} |", flush=True)
    print("mean recovered:", " / ".join(f"{share:.2f}" for share in np.mean(shares, axis=0)))


if __name__ == "__main__":
    main()
