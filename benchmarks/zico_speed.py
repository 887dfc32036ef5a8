"""ZiCo beside the official code and beside the passes that both need, on the same networks, weights and batches.

    python benchmarks/zico_speed.py --official ZICO_CLONE [--networks 6] [--repeats 5]

ZICO_CLONE: a clone of github.com/SLDGroup/ZiCo, which is read and never changed; without it only our own sides are
timed. On random cells of NAS-Bench-201, 2 batches of 64 random images, one thread, in turns: the two plain
forward-backward passes in both memory layouts, `zico_compat`, `zico`, and the official getzico in both layouts. The
official code moves everything to a GPU; here `cuda` of tensors and modules is the identity while it runs.
Wall and CPU times are both printed: on a shared machine the CPU times, and the minima, are what to read.
"""

import argparse
import contextlib
import importlib.util
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgewright.proxy.base import score
from edgewright.proxy.resolve import resolve_proxies
from edgewright.space.resolve import make_tabular

Batches = list[tuple[Tensor, Tensor]]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
OFFICIAL = "ZeroShotProxy/compute_zico.py"


def official_zico(clone: Path) -> Callable[..., float]:
    """The official function; what its file imports and this function does not use is an empty module meanwhile."""
    found = importlib.util.spec_from_file_location("official_zico", clone / OFFICIAL)
    if found is None or found.loader is None or not (clone / OFFICIAL).is_file():
        raise SystemExit(f"{clone}: no {OFFICIAL} there; give --official a clone of github.com/SLDGroup/ZiCo")
    module = importlib.util.module_from_spec(found)
    unused = {name: types.ModuleType(name) for name in ("global_utils", "ModelLoader")}
    path = list(sys.path)
    with mock.patch.dict(sys.modules, unused):
        found.loader.exec_module(module)
    sys.path[:] = path
    return module.getzico


@contextlib.contextmanager
def no_gpu() -> Iterator[None]:
    with (
        mock.patch.object(Tensor, "cuda", lambda self, *_, **__: self),
        mock.patch.object(nn.Module, "cuda", lambda self, *_, **__: self),
    ):
        yield


def plain_passes(model: nn.Module, batches: Batches) -> None:
    """What ZiCo needs at the least: a forward and a backward pass per batch."""
    model.train()
    for images, labels in batches:
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()


def sides(
    build: Callable[[], nn.Module], batches: Batches, getzico: Callable[..., float] | None
) -> dict[str, Callable]:
    """What is timed, by name. Every side has a network of its own with the same weights."""
    timed: dict[str, Callable] = {}
    for layout, memory_format in LAYOUTS.items():
        model = build().to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
        laid = [(images.contiguous(memory_format=memory_format), labels) for images, labels in batches]
        timed[f"two passes, {layout}"] = lambda model=model, laid=laid: plain_passes(model, laid)
        if getzico is not None:
            timed[f"official, {layout}"] = lambda model=model, laid=laid: getzico(model, laid, F.cross_entropy)
        if layout == "channels_last":
            for name in ("zico_compat", "zico"):
                proxy = resolve_proxies([name])
                timed[name] = lambda model=model, laid=laid, name=name, proxy=proxy: score(model, laid, proxy)[name]
    return timed


def measure(timed: dict[str, Callable], repeats: int) -> tuple[dict[str, float], dict[str, list[tuple[float, float]]]]:
    """What each side returns, and (wall, CPU) seconds of each of its turns; the sides take turns, in changing order."""
    values = {name: function() for name, function in timed.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    names = list(timed)
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            wall, cpu = time.perf_counter(), time.process_time()
            timed[name]()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return values, times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="a clone of github.com/SLDGroup/ZiCo")
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    getzico = official_zico(options.official) if options.official else None
    space = make_tabular("nb201")
    generator = torch.Generator().manual_seed(options.seed)
    batches = [
        (
            torch.randn(options.images, 3, 32, 32, generator=generator),
            torch.randint(0, 10, (options.images,), generator=generator),
        )
        for _ in range(2)
    ]
    rows = Random(options.seed).sample(
        [row for row in range(len(space)) if space.canonical(row) == row], options.networks
    )
    networks: list[dict[str, list[tuple[float, float]]]] = []
    differences: list[float] = []
    for row in rows:

        def build(row: int = row) -> nn.Module:
            torch.manual_seed(row)
            return space.build(space.at(row))

        with no_gpu():
            values, times = measure(sides(build, batches, getzico), options.repeats)
        networks.append(times)
        if getzico is not None:
            theirs = values["official, channels_last"]
            differences.append(abs(values["zico_compat"] - theirs) / abs(theirs))
        print(f"  {space.describe(space.at(row))}", file=sys.stderr)
    _print(networks, differences)


def _print(networks: list[dict[str, list[tuple[float, float]]]], differences: list[float]) -> None:
    """Milliseconds, and ratios to the better of the two layouts of the plain passes: medians over networks."""
    print(f"{len(networks)} networks, ms; ratio to the two passes in the better layout, median over networks\n")
    print("| side | wall, median | wall, least | CPU, median | CPU, least | ratio by CPU least | by CPU median |")
    print("|---" * 7 + "|")
    passes = [name for name in networks[0] if name.startswith("two passes")]
    for name in networks[0]:
        columns, ratios = [], []
        for clock in (0, 1):
            for pick in (statistics.median, min):
                each = {
                    side: [pick([turn[clock] for turn in net[side]]) for net in networks] for side in (name, *passes)
                }
                columns.append(1e3 * statistics.median(each[name]))
                best = [min(pair) for pair in zip(*(each[side] for side in passes), strict=True)]
                ratios.append(statistics.median(a / b for a, b in zip(each[name], best, strict=True)))
        shown = " | ".join(f"{column:.0f}" for column in columns)
        print(f"| {name} | {shown} | {ratios[3]:.3f} | {ratios[2]:.3f} |")
    if differences:
        print(f"\nlargest relative difference between zico_compat and the official value: {max(differences):.1e}")


if __name__ == "__main__":
    main()
