"""Ranking proxies on published tables: which training-free score orders real networks best, and what that is worth.

Networks are drawn from the tables (one of each isomorphism class), scored by every proxy in one pass, and compared with
what the tables say. Scores are kept one by one, so a cut run goes on where it was. Naive references (parameters, MACs)
are always among the proxies, and so is `combined`, the label-free combination of facts of the wiring.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from pydantic import Field

from edgewright.core.data import Frozen, read_json
from edgewright.core.errors import BadInput
from edgewright.core.files import write_text
from edgewright.core.pool import Pool, pool
from edgewright.core.progress import progress, say
from edgewright.core.ranking import as_table, band_mean, between, stand, within_bands
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.core.signal import signal
from edgewright.core.study import Candidate, Study
from edgewright.proxy.combination import combine
from edgewright.proxy.resolve import proxies as known_proxies
from edgewright.proxy.resolve import resolve_proxies
from edgewright.search.scoring import ScoringJob, save_batches, score_architecture
from edgewright.space.base import TabularSpace
from edgewright.space.resolve import make_tabular
from edgewright.space.table import Table, read_table
from edgewright.task.base import Split, TaskSpec
from edgewright.task.load import absolute, load_task

NAIVE = ("params", "macs")
COMBINED = "combined"
TIMED = 3  # networks that each proxy is timed on, alone
PLAN, RESULT = "rank_plan.json", "rank.json"
_NOTHING_SEEN = TaskSpec(
    name="no data", source="none", classes=tuple(map(str, range(10))), channels=3, resolution=32,
    mean=(0.0,) * 3, std=(1.0,) * 3, flip=False, num_train=0, num_val=0, num_test=0, digest="",
)  # fmt: skip


class RankPlan(Frozen):
    """What is compared on what.

    space: a space that tables speak of.   tables: FILE.npz:COLUMN each; the first one is the one of the summary.
    proxies: names, or "all".   sample: networks, None for every one.   data: arrays:FILE.npz or another task; without
    it only proxies that need none.   images, batches: of each scoring batch, and how many.   seed: of the sample, the
    weights and the bootstrap.   resamples: of the bootstrap.   cheap: proxies that run a network run the space's `thin`
    one, on at most 16 images a batch, once for all networks that compute the same (`twin`); the others are unchanged.
    """

    space: str
    tables: tuple[str, ...] = Field(min_length=1)
    proxies: tuple[str, ...] = ("all",)
    sample: int | None = Field(default=None, ge=10)
    data: str | None = None
    images: int = Field(default=64, ge=2)
    batches: int = Field(default=2, ge=1)
    seed: int = 0
    resamples: int = Field(default=200, ge=0)
    cheap: bool = False


class RankResult(Frozen):
    """What came out; `rank.json` is this.

    proxies: by name, for the first table: spearman, kendall, top1_accuracy, ..., intervals (95 %), band_spearman and
    band_kendall (mean within ten narrow bands of MACs), seconds (a network, alone, one thread), or `missing`: why.
    tables: the same by table, then by proxy.   between: Spearman between proxies, rows and columns in `names` order.
    """

    schema_: int = Field(default=1, alias="schema")
    space: str
    sample: int
    seed: int
    seconds: float
    proxies: dict[str, dict[str, Any]]
    tables: dict[str, dict[str, dict[str, Any]]]
    names: tuple[str, ...]
    between: tuple[tuple[float | None, ...], ...]
    average_accuracy: dict[str, float]
    best_accuracy: dict[str, float]


def rank(plan: RankPlan, out: Path, *, workers: int | None = None) -> RankResult:
    """Score the sample, compare with the tables, write rank.json and report.html into `out`.

    Errors: BadInput for an unknown space, proxy or column, a table that does not match the space, a proxy that needs
    data or labels where there are none, a folder that holds another ranking.
    """
    from edgewright.report.standings import write_standings  # plotly is slow to import

    folder = RunFolder(out)
    spec = _spec(plan)
    space = make_tabular(plan.space, spec.channels, len(spec.classes), spec.resolution)
    tables = [read_table(table, space) for table in plan.tables]
    names = _names(plan)
    _begin(folder, plan)
    began = time.perf_counter()
    with folder.locked(), Study(folder.study) as study, pool(workers) as crew:
        rows = sample_rows(space, tables, plan.sample, plan.seed)
        scores = _score(study, crew, space, spec, plan, folder, names, rows)
        scores[COMBINED], each = _combined(space, rows)
        alone = _seconds_alone(study, space, spec, plan, folder, names, rows) | {COMBINED: each}
    result = compare(plan, space, tables, rows, scores, alone, time.perf_counter() - began)
    write_text(out / RESULT, result.to_json())
    write_standings(folder.report, plan.tables, result, scores, _truths(plan, tables, rows))
    return result


def _spec(plan: RankPlan) -> TaskSpec:
    return load_task(plan.data, seed=plan.seed).spec if plan.data else _NOTHING_SEEN


def _images(plan: RankPlan) -> Split:
    """What the batches are drawn from; without data zeros, of which only the shape is read."""
    if plan.data:
        return load_task(plan.data, seed=plan.seed).train
    count = plan.images * plan.batches
    return Split(torch.zeros(count, 3, 32, 32), torch.zeros(count, dtype=torch.int64))


def _names(plan: RankPlan) -> tuple[str, ...]:
    """The proxies of the plan, the naive references first; without data, those that need none."""
    every = known_proxies()
    wanted = tuple(every) if "all" in plan.proxies else plan.proxies
    chosen = resolve_proxies((*NAIVE, *wanted))
    hungry = [proxy.name for proxy in chosen if proxy.needs - {"shapes"}] if plan.data is None else []
    if hungry and "all" not in plan.proxies:
        raise BadInput(f"{', '.join(hungry)} need images: give --data, as arrays:FILE.npz")
    if hungry:
        say(f"without --data only proxies that need no images are compared; left out: {', '.join(hungry)}")
    return tuple(proxy.name for proxy in chosen if proxy.name not in hungry)


def _begin(folder: RunFolder, plan: RankPlan) -> None:
    """Make the folder, or find there the same plan, to go on with."""
    path = folder.path / PLAN
    if not path.exists():
        folder.check_new()
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.checkpoints.mkdir(exist_ok=True)
        data = absolute(plan.data) if plan.data else None
        write_text(path, plan.model_copy(update={"data": data}).to_json())
    elif RankPlan.parse(read_json(path), str(path)).model_dump(exclude={"data"}) != plan.model_dump(exclude={"data"}):
        raise BadInput(f"{folder.path}: holds another ranking (see {PLAN}); choose another folder")


def sample_rows(space: TabularSpace, tables: Sequence[Table], count: int | None, seed: int) -> list[int]:
    """`count` random rows that every table has, each the first of its isomorphism class; None gives all of them."""
    shared = set.intersection(*(set(table.indices.tolist()) for table in tables))
    rows = sorted(row for row in shared if space.canonical(row) == row)
    if len(rows) < 10:
        raise BadInput(f"{tables[0].source}: only {len(rows)} networks that every table has; a ranking needs 10")
    return rows if count is None or count >= len(rows) else sorted(Random(derive(seed, "rank")).sample(rows, count))


def first_twins(space: TabularSpace, rows: Sequence[int]) -> dict[int, int]:
    """For each of `rows` the first of them that computes the same with fresh weights."""
    found: dict[int, int] = {}
    return {row: found.setdefault(space.twin(row), row) for row in rows}


def _job(
    space: TabularSpace, spec: TaskSpec, plan: RankPlan, folder: RunFolder, names: tuple[str, ...], row: int
) -> ScoringJob:
    return ScoringJob(
        space=plan.space,
        spec=spec,
        architecture=space.at(row).model_dump(mode="json"),
        batches=folder.checkpoints / "batches.safetensors",
        proxies=names,
        seed=plan.seed,
        cheap=plan.cheap,
    )


def _score(
    study: Study,
    crew: Pool,
    space: TabularSpace,
    spec: TaskSpec,
    plan: RankPlan,
    folder: RunFolder,
    names: tuple[str, ...],
    rows: Sequence[int],
) -> dict[str, np.ndarray]:
    """Every network's scores, as the study has them or as they are made now; NaN where a proxy has no value."""
    batches = folder.checkpoints / "batches.safetensors"
    if not batches.exists():
        save_batches(batches, _images(plan), count=plan.batches, size=plan.images, seed=plan.seed)
    known = {candidate.key: candidate.scores for candidate in study.candidates()}
    keys = {row: space.at(row).key() for row in rows}
    waiting = [row for row in rows if keys[row] not in known]
    first = first_twins(space, rows) if plan.cheap else {row: row for row in rows}
    still = tuple(proxy.name for proxy in resolve_proxies(names) if proxy.of_structure)
    jobs = [_job(space, spec, plan, folder, names if first[row] == row else still, row) for row in waiting]
    with progress("Scoring networks", total=len(rows)) as bar:
        bar.advance(len(rows) - len(waiting))
        for row, own in zip(waiting, crew.imap(score_architecture, jobs), strict=True):
            # The first of the twins comes before the others, in this run or in the one that was cut.
            scores = own if first[row] == row else known[keys[first[row]]] | own
            architecture = space.at(row).model_dump(mode="json")
            study.record(Candidate(key=keys[row], architecture=architecture, costs={}, scores=scores))
            known[keys[row]] = scores
            bar.advance()
    return {name: np.array([known[keys[row]].get(name, np.nan) for row in rows]) for name in names}


def _seconds_alone(
    study: Study,
    space: TabularSpace,
    spec: TaskSpec,
    plan: RankPlan,
    folder: RunFolder,
    names: tuple[str, ...],
    rows: Sequence[int],
) -> dict[str, float]:
    """Median seconds that each proxy takes for a network when it is asked for alone, building included, one thread."""
    noted = study.read_note("seconds", {})
    for name in names:
        if name not in noted:
            times = []
            for row in rows[:: max(1, len(rows) // TIMED)][:TIMED]:
                began = time.perf_counter()
                score_architecture(_job(space, spec, plan, folder, (name,), row))
                times.append(time.perf_counter() - began)
            noted[name] = statistics.median(times)
            study.note("seconds", noted)
    return {name: noted[name] for name in names}


def _combined(space: TabularSpace, rows: Sequence[int]) -> tuple[np.ndarray, float]:
    """`proxy.combination.combine` among the sampled networks, and its seconds for each of them."""
    began = time.perf_counter()
    signals = [signal(graph for _, graph in space.blocks(space.at(row))) for row in rows]
    return combine(signals), (time.perf_counter() - began) / len(rows)


def _truths(plan: RankPlan, tables: Sequence[Table], rows: Sequence[int]) -> dict[str, np.ndarray]:
    """What every table says of the sampled networks, by the table as it was asked for."""
    return {spelled: table.at(rows) for spelled, table in zip(plan.tables, tables, strict=True)}


def compare(
    plan: RankPlan,
    space: TabularSpace,
    tables: Sequence[Table],
    rows: Sequence[int],
    scores: Mapping[str, np.ndarray],
    seconds: Mapping[str, float],
    took: float,
) -> RankResult:
    """The statistics of every score on every table."""
    every = known_proxies()
    lower = {name for name, proxy in every.items() if not proxy.higher_is_better}
    signed = {name: -values if name in lower else values for name, values in scores.items()}
    macs = np.asarray(scores["macs"], dtype=float)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    truths = _truths(plan, tables, rows)
    for spelled, truth in truths.items():
        found[spelled] = {}
        for name, values in signed.items():
            standing = as_table(stand(values, truth, resamples=plan.resamples, seed=plan.seed))
            if np.isnan(values).all():  # not a bad score: none at all, and the proxy says why
                standing = {"missing": every[name].undefined(space.build(space.at(rows[0])))}
            if "missing" not in standing:
                bands = within_bands(values, truth, macs)
                standing |= {"band_spearman": band_mean(bands), "band_kendall": band_mean(bands, "kendall")}
            found[spelled][name] = {**standing, "seconds": seconds.get(name)}
    names, matrix = between(signed)
    return RankResult(
        space=plan.space,
        sample=len(rows),
        seed=plan.seed,
        seconds=took,
        proxies=found[plan.tables[0]],
        tables=found,
        names=tuple(names),
        between=tuple(tuple(None if np.isnan(x) else float(x) for x in line) for line in matrix),
        average_accuracy={spelled: float(truth.mean()) for spelled, truth in truths.items()},
        best_accuracy={spelled: float(truth.max()) for spelled, truth in truths.items()},
    )
