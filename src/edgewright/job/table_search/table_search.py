"""Searching a published table: what each strategy finds with so many queries, beside random search."""

from pathlib import Path

import numpy as np

from edgewright.core.cost import figures
from edgewright.core.errors import BadInput
from edgewright.core.files import write_text
from edgewright.core.progress import say
from edgewright.job.table_search.plan import TableSearchPlan
from edgewright.search.regret import Regret, Trials, regret_curves
from edgewright.space.resolve import make_tabular
from edgewright.space.table import Ceiling, read_ceiling, read_table


def search_table(plan: TableSearchPlan, *, workers: int | None = None, out: Path | None = None) -> Regret:
    """Run strategies on a table; see `search.regret.regret_curves`.

    Args:
        workers: processes; default one a core.   out: folder for search.json and search.html, nothing is written
            without. Without a ceiling on the latency, the table's median is one.
    Errors: BadInput for what the tables or the strategies cannot be; BudgetInfeasible for a ceiling nothing keeps.
    """
    made, latency_ms = make_tabular(plan.space), plan.latency_ms
    rows = range(len(made))
    accuracy = read_table(plan.table, made).at(rows)
    times = None if plan.latency is None else read_table(plan.latency, made).at(rows)
    if times is None and latency_ms is not None:
        raise BadInput("--latency-ms is a ceiling on a table of latencies: give it, as --latency FILE.npz:COLUMN")
    if times is not None and latency_ms is None:
        latency_ms = float(np.nanmedian(times))
        say(f"no --latency-ms given: the ceiling is the table's median, {figures(latency_ms, 6)} ms")
    ceilings = [read_ceiling(spec, made) for spec in plan.ceilings]
    if times is not None and latency_ms is not None:
        ceilings.insert(0, Ceiling(str(plan.latency), times, latency_ms))
    found = regret_curves(
        made,
        accuracy,
        None if plan.strategies == ("all",) else plan.strategies,
        ceilings=ceilings,
        reward=plan.reward,
        trials=Trials(queries=plan.queries, repeats=plan.repeats, seed=plan.seed),
        workers=workers,
    )
    if out is not None:
        from edgewright.report.parts.regret import write_regret_report

        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "search.json", found.to_json())
        write_regret_report(found, out / "search.html")
    return found
