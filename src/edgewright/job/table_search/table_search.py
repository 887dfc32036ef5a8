"""Searching a published table: what each strategy finds with so many queries, beside random search."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.core.cost import figures
from edgewright.core.files import write_text
from edgewright.core.progress import say
from edgewright.search.regret import Regret, Reward, regret_curves
from edgewright.space.resolve import make_tabular
from edgewright.space.table import read_table


def search_table(
    space: str,
    table: str,
    *,
    latency: str | None = None,
    latency_ms: float | None = None,
    strategies: Sequence[str] | None = None,
    reward: Reward = "hard",
    queries: int = 100,
    repeats: int = 100,
    seed: int = 0,
    workers: int | None = None,
    out: Path | None = None,
) -> Regret:
    """Run strategies on `table` (FILE.npz:COLUMN, accuracy in percent); see `search.regret.regret_curves`.

    Args:
        latency: FILE.npz:COLUMN, ms.   latency_ms: the ceiling on it; by default the table's median.
        strategies: names; None for all.   out: folder for search.json and search.html, nothing is written without.
    Errors: BadInput for what the tables or the strategies cannot be; BudgetInfeasible for a ceiling nothing keeps.
    """
    made = make_tabular(space)
    rows = range(len(made))
    accuracy = read_table(table, made).at(rows)
    times = None if latency is None else read_table(latency, made).at(rows)
    if times is not None and latency_ms is None:
        latency_ms = float(np.nanmedian(times))
        say(f"no --latency-ms given: the ceiling is the table's median, {figures(latency_ms, 6)} ms")
    found = regret_curves(
        made,
        accuracy,
        strategies,
        latency=times,
        ceiling=latency_ms,
        reward=reward,
        queries=queries,
        repeats=repeats,
        seed=seed,
        workers=workers,
    )
    if out is not None:
        from edgewright.report.parts.regret import write_regret_report

        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "search.json", found.to_json())
        write_regret_report(found, out / "search.html")
    return found
