"""Which channels of a start are to go: importances that need no data, on a new task, before anything but a head learns.

    python benchmarks/shrunk_importance.py --data arrays:few.npz --weights w.safetensors

The start keeps a share of its channels, inside its parts or in the streams between them; a head is taught on the
training part (`train.head`), and the accuracy on test, or some of it, is told. The columns are importances.
"""

import argparse

import torch

from edgewright.compress.prune.asked import IMPORTANCES
from edgewright.compress.prune.importance import cross_entropy
from edgewright.start.resolve import find_starts, open_space
from edgewright.start.shrunk import ShrunkSpace
from edgewright.task.load import load_task
from edgewright.train.evaluate import evaluate
from edgewright.train.head import awaken

WIDTHS = {"3/4 inside": (8, 6), "1/2 inside": (8, 4), "3/4 of the streams": (6, 8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--start", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--importances", nargs="+", default=["magnitude", "fpgm", "received"])
    parser.add_argument("--samples", type=int, default=1000, help="of test")
    args = parser.parse_args()
    (start,) = find_starts(args.start, args.weights)
    task = load_task(args.data)
    task = task.normalised(start.mean, start.std, task.spec.input.white or 1.0)
    test = task.test.take(slice(args.samples))
    space = open_space(ShrunkSpace.name, task.spec, start)
    assert isinstance(space, ShrunkSpace)
    print(f"| kept | {' | '.join(args.importances)} |", "|---" * (len(args.importances) + 1) + "|", sep="\n")
    for told, width in WIDTHS.items():
        row = []
        for name in args.importances:
            scores = IMPORTANCES[name](space._learned, space.plan.found.groups, (), cross_entropy)
            named = zip(space.plan.found.groups, scores, strict=True)
            space._order = {group.name: torch.argsort(-score, stable=True).tolist() for group, score in named}
            whole = space.whole()
            chosen = whole.model_copy(update={"widths": (width,) * len(whole.widths)})
            torch.manual_seed(0)
            model = space.build(chosen)
            awaken(model, task, space.resolution(chosen), 0)
            row.append(f"{evaluate(model, test, task.spec, space.resolution(chosen)).values['accuracy']:.1f}")
        print(f"| {told} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
