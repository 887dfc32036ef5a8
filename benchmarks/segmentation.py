"""What `design` reaches on masks beside a plain U-Net that nobody searched for, in the same minutes.

    python benchmarks/segmentation.py --data segment:nuclei --latency-ms 8 --minutes 10 --out runs/masks

The U-Net (Ronneberger et al., MICCAI 2015): four levels of two 3x3 convolutions with batch norms, max pooling between,
widths w, 2w, 4w, 8w, brought back by nearest upsampling and concatenation, one 1x1 convolution; w is the least multiple
of 4 at which it takes as long as `design`'s file. It has the library's own `fit`, recipe and loss, the same
parts, and as many minutes as `design` took in all. Both files are measured in turns, one thread, batch 1.
"""

import argparse
import itertools
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.cost import Budget
from edgewright.core.plan import Plan
from edgewright.core.run import RunFolder
from edgewright.device.measure import Runs
from edgewright.device.resolve import make_device
from edgewright.export.onnx import export_onnx
from edgewright.job.design.run import run
from edgewright.task.load import load_task
from edgewright.train.clock import TimeClock
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import Running, fit, training_device
from edgewright.train.recipe import recipe_for

EPOCHS = 60.0  # that the U-Net's recipe is made for; the time decides


def twice(source: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (source, width):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.down = nn.ModuleList(twice(a, b) for a, b in zip([channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(twice(a + b, a) for a, b in itertools.pairwise(widths))
        self.answer = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for block, finer in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            x = functional.interpolate(x, size=finer.shape[-2:], mode="nearest")
            x = block(torch.cat((finer, x), 1))
        return self.answer(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="segment:DIR")
    parser.add_argument("--latency-ms", type=float, default=8.0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    plan = Plan(task=args.data, budget=Budget(latency_ms=args.latency_ms), minutes=args.minutes, seed=args.seed)
    folder, began = RunFolder(args.out / "design"), time.monotonic()
    result = run(plan, folder.path)
    minutes = (time.monotonic() - began) / 60
    task, device, file = load_task(args.data, seed=args.seed), make_device("cpu", 1), args.out / "unet.onnx"
    shape, outputs = task.spec.input.shape, len(task.spec.names)
    for width in range(4, 65, 4):
        torch.manual_seed(args.seed)
        model = UNet(shape[0], outputs, width)
        export_onnx(model, shape, file)
        unet, ours = device.measure([file, folder.onnx], Runs(most=100, tries=3))
        if unet.median_ms >= ours.median_ms:
            break
    fit(
        model, task, recipe_for(task.spec, EPOCHS), size=task.spec.size, seed=args.seed,
        clock=TimeClock(60 * minutes), running=Running(device=training_device(), label="U-Net"),
    )  # fmt: skip
    found = evaluate(model, task.test, task.spec, task.spec.size).values
    export_onnx(model, shape, file)
    unet, ours = device.measure([file, folder.onnx], Runs(most=300, tries=3))
    print(f"{'':<18}" + "".join(f"{name:>16}" for name in found) + f"{'latency':>12}{'minutes':>9}")
    for name, values, latency in (
        ("design", result.metrics.test, ours),
        (f"U-Net, width {width}", found, unet),
    ):
        figures = "".join(f"{values[one]:>14.2f} %" for one in found)
        print(f"{name:<18}{figures}{latency.median_ms:>9.3f} ms{minutes:>9.1f}")


if __name__ == "__main__":
    main()
