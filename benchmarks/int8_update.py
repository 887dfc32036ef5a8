"""Adapt a published integer network to other images: plain SGD, scaled SGD, sparse updates, at every learning rate.

Needs a network as `edgewright.model.mcunet.read_int8` reads it (mcunet-5fps for the published scheme) and an .npz with
x_train, y_train, x_test, y_test. Images are enlarged to the network's resolution; the first ones are taken. No
momentum, cosine learning rate, a new float head which learns in every row. Memory is the paper's count for one image:
masks, inputs, biases and weights that learn, not the head. Kept is what autograd holds for one image, head included,
8-bit copies of weights left out (a device has these anyway).

    python benchmarks/int8_update.py --network mcunet-5fps.npz --data cifar10.npz

With --search KB the contributions are measured in short trainings, and the scheme found for that memory is a row too.
"""

import argparse
import math
import time
from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.backward.account import measure_kept, total
from edgewright.backward.base import swapped
from edgewright.backward.plans.scheme_search import best_scheme, contributions
from edgewright.backward.rules.int8 import norm_ratios, scale_gradients
from edgewright.backward.rules.sparse_update import Scheme, convolutions, memory_bits, scheme_rules
from edgewright.backward.survey import Site, survey
from edgewright.core.npz import read_npz
from edgewright.core.seed import derive
from edgewright.model.mcunet import Int8Network, quantised, read_int8

Data = tuple[Tensor, Tensor]
PUBLISHED = {21: 1.0, 24: 1.0, 27: 1.0, 30: 1.0, 36: 1 / 8, 39: 1 / 4}  # the 100 KB scheme of mcunet-5fps


def part(data: Mapping, which: str, count: int) -> Data:
    images = torch.from_numpy(data[f"x_{which}"][:count]).permute(0, 3, 1, 2)
    return images, torch.from_numpy(data[f"y_{which}"][:count]).long()


def enlarged(images: Tensor, side: int) -> Tensor:
    return quantised(functional.interpolate(images.float(), size=(side, side), mode="bilinear"))


def fresh(args: argparse.Namespace, seed: int) -> Int8Network:
    model = read_int8(args.network)
    model.new_head(args.classes, seed=derive(seed, "head"))
    return model


def accuracy(model: Int8Network, data: Data) -> float:
    with torch.no_grad():
        right = sum(
            int((model(enlarged(x, model.resolution)).argmax(1) == y).sum())
            for x, y in zip(data[0].split(100), data[1].split(100), strict=True)
        )
    return 100 * right / len(data[1])


def adapt(model: Int8Network, data: Data, lr: float, epochs: int, batch: int, scaled: bool, seed: int) -> None:
    """Plain SGD of what requires a gradient, head included; `scaled` makes it quantisation-aware."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    random = torch.Generator().manual_seed(derive(seed, "order"))
    steps = epochs * (len(data[1]) // batch)
    for step in range(steps):
        if step % (steps // epochs) == 0:
            order = torch.randperm(len(data[1]), generator=random).split(batch)
        chosen = order[step % (steps // epochs)]
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        functional.cross_entropy(model(enlarged(data[0][chosen], model.resolution)), data[1][chosen]).backward()
        if scaled:
            scale_gradients(model)
        optimizer.step()


def trained(
    args: argparse.Namespace, scheme: Scheme, sites: tuple[Site, ...], train: Data, test: Data, lr: float, scaled: bool,
    epochs: int,
) -> tuple[float, int]:  # fmt: skip
    """Test accuracy after adapting, and bytes kept for one image."""
    model = fresh(args, args.seed)
    rules, names = scheme_rules(scheme, sites, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    learning = convolutions(sites)[-scheme.num_biases :]
    copies = sum(prod(site.calls[0].weight) for site in learning[1:])
    with swapped(model, rules):
        kept = total(measure_kept(model, enlarged(train[0][:1], model.resolution)))
        kept -= copies if scheme.num_biases else 0
        adapt(model, train, lr, epochs, args.batch, scaled, args.seed)
    return accuracy(model, test), kept


def searched(args: argparse.Namespace, sites: tuple[Site, ...], train: Data, lr: float) -> Scheme:
    """The scheme for `--search` KB by contributions measured on the training images alone: half learn, half judge."""
    convs, middle = convolutions(sites), len(train[1]) // 2
    learn, judge = (train[0][:middle], train[1][:middle]), (train[0][middle:], train[1][middle:])
    shapes = {site.name: site.calls[0].weight for site in convs[-22:]}
    expanding = [name for name, (wide, narrow, *kernel) in shapes.items() if kernel == [1, 1] and wide > narrow]

    def measured(scheme: Scheme) -> float:
        return trained(args, scheme, sites, learn, judge, lr, True, 1)[0]

    known = contributions(convs, measured, layers=expanding, shares=(1.0, 1 / 4), deepest=22)
    return best_scheme(convs, known, round(args.search * 8192), seed=args.seed)


def ratios(args: argparse.Namespace, train: Data) -> None:
    model = fresh(args, args.seed)
    functional.cross_entropy(model(enlarged(train[0][:32], model.resolution)), train[1][:32]).backward()
    before = torch.tensor(list(norm_ratios(model).values()))
    scale_gradients(model)
    after = torch.tensor(list(norm_ratios(model).values()))
    for name, values in (("as they come", before), ("scaled", after)):
        print(f"log10(|w| / |gradient|), {name}: mean {values.mean():.2f}, standard deviation {values.std():.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", type=int, default=1200)
    parser.add_argument("--test", type=int, default=800)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--lr", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1])
    parser.add_argument("--search", type=float, metavar="KB")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = read_npz(args.data)
    train, test = part(data, "train", args.train), part(data, "test", args.test)
    model = fresh(args, args.seed)
    sites = survey(model, torch.zeros(1, 3, model.resolution, model.resolution))
    convs = convolutions(sites)
    names = [site.name for site in convs]
    ratios(args, train)
    sparse = Scheme(22, {names[index]: share for index, share in PUBLISHED.items()})
    rows = [
        ("head alone", Scheme(0), True),
        ("biases of the last 22", Scheme(22), True),
        ("the last 6 layers", Scheme(6, dict.fromkeys(names[-6:], 1.0)), False),
        ("the last 6 layers", Scheme(6, dict.fromkeys(names[-6:], 1.0)), True),
        ("the last 12 layers", Scheme(12, dict.fromkeys(names[-12:], 1.0)), True),
        ("published 100 KB scheme", sparse, False),
        ("published 100 KB scheme", sparse, True),
    ]
    print(
        f"| what learns | SGD | memory, KB | kept, KB | {' | '.join(f'lr {lr:g}' for lr in args.lr)} | best | seconds |"
    )
    print("|---" * (6 + len(args.lr)) + "|")
    for row in rows:
        print(line(args, *row, sites, train, test), flush=True)
    if args.search is not None:
        found = searched(args, sites, train, args.lr[len(args.lr) // 2 - 1])
        print(line(args, f"searched, {args.search:g} KB", found, True, sites, train, test))
        print(f"\nfound: biases of the last {found.num_biases}, weights {dict(found.shares)}")


def line(
    args: argparse.Namespace, name: str, scheme: Scheme, scaled: bool, sites: tuple[Site, ...], train: Data, test: Data
) -> str:
    """A row of the table: one scheme at every learning rate."""
    begun = time.perf_counter()
    found = [trained(args, scheme, sites, train, test, lr, scaled, args.epochs) for lr in args.lr]
    seconds = (time.perf_counter() - begun) / len(args.lr)
    values = [value for value, _ in found]
    kind, memory = "scaled" if scaled else "plain", memory_bits(scheme, convolutions(sites)) / 8192
    cells = " | ".join(f"{value:.1f}" for value in (*values, max(values)))
    return f"| {name} | {kind} | {memory:.0f} | {found[0][1] / 1024:.0f} | {cells} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
