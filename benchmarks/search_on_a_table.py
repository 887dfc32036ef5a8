"""Every strategy on a published table under a latency ceiling: regret after up to 100 queries, with random search.

Prints the table and writes the curves: `search.json` and `search.html` in the output folder.

    python benchmarks/search_on_a_table.py --table nb201_acc.npz:c10_test_200 --latency nb201_latency.npz:pixel2 \\
        --ceilings 10 12 15 18 --out runs/search
"""

import argparse
from pathlib import Path

import numpy as np

from edgewright.core.files import write_text
from edgewright.report.parts.regret import write_regret_report
from edgewright.search.regret import Trials, choices, regret_curves, table_lines
from edgewright.space.spaces.nasbench201 import NASBench201
from edgewright.space.table import Ceiling, read_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="FILE.npz:COLUMN, accuracy in percent")
    parser.add_argument("--latency", required=True, help="FILE.npz:COLUMN, ms")
    parser.add_argument("--ceilings", type=float, nargs="+", default=[12.0], help="ms")
    parser.add_argument("--strategies", nargs="+", choices=choices())
    parser.add_argument("--reward", choices=("hard", "soft"), default="hard")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    space = NASBench201.for_images(3, 10, 32)
    rows = range(len(space))
    accuracy, latency = (np.asarray(read_table(spec, space).at(rows)) for spec in (options.table, options.latency))
    for ceiling in options.ceilings:
        result = regret_curves(
            space,
            accuracy,
            options.strategies,
            ceilings=[Ceiling(options.latency, latency, ceiling)],
            reward=options.reward,
            trials=Trials(queries=options.queries, repeats=options.repeats, seed=options.seed),
            workers=options.workers,
        )
        name = "search" if len(options.ceilings) == 1 else f"search-{ceiling:g}ms"
        write_text(options.out / f"{name}.json", result.to_json())
        report = write_regret_report(result, options.out / f"{name}.html")
        print(
            f"\n{ceiling:g} ms, {result.inside} networks inside, the best {result.best:.2f} %, {options.reward} budget"
        )
        print("\n".join(table_lines(result)))
        print(f"{report}")


if __name__ == "__main__":
    main()
