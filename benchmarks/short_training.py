"""What a minute of training makes of plain networks: their size against the samples they see, and the recipe.

    python benchmarks/short_training.py --data arrays:cifar10.npz --seconds 60 --factors 0.65 1 1.4
    python benchmarks/short_training.py --data arrays:cifar10.npz --seconds 60 --factors 1 --recipes short long bare

The plain network of `plain_baseline.py`, its widths times a factor. Recipes: `short` is that of so few epochs, `long`
that of thirty, `bare` the short one without any augmentation. Each in so many seconds on all cores, its looks at val
included; test is looked at once.
"""

import argparse

from plain_baseline import WIDTHS, macs, plain

from edgewright.task.base import TaskSpec
from edgewright.task.load import load_task
from edgewright.train.clock import TimeClock
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import Running, fit, training_device
from edgewright.train.recipe import FEW_EPOCHS, HARDLY, Recipe, recipe_for


def recipes(spec: TaskSpec, epochs: float) -> dict[str, Recipe]:
    short = recipe_for(spec, epochs)
    return {
        "short": short,
        "long": recipe_for(spec, FEW_EPOCHS - 1),
        "bare": short.model_copy(update={"augment": None}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="arrays:FILE.npz or images:DIR, of classes")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--factors", type=float, nargs="+", default=[0.65, 1.0, 1.4], help="of the widths")
    parser.add_argument("--recipes", nargs="+", default=["short"], choices=["short", "long", "bare"])
    parser.add_argument("--epochs", type=float, default=HARDLY + 1, help="that the short recipe is made for")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    task = load_task(args.data, seed=args.seed)
    print("| recipe | factor | MACs | epochs | accuracy, % | balanced, % |", "|---" * 6 + "|", sep="\n")
    for name in args.recipes:
        for factor in args.factors:
            model = plain(task, args.seed, [max(8, round(factor * width / 8) * 8) for width in WIDTHS])
            cost = macs(model, task)
            recipe, running = recipes(task.spec, args.epochs)[name], Running(device=training_device())
            clock = TimeClock(args.seconds)
            found = fit(model, task, recipe, size=task.spec.size, seed=args.seed, clock=clock, running=running)
            figures = evaluate(model, task.test, task.spec).values
            row = (f"{figures['accuracy']:.2f}", f"{figures['balanced_accuracy']:.2f}")
            print(f"| {name} | {factor:g} | {cost:,} | {found.epochs:.1f} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
