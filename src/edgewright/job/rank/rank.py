"""Ranking proxies on published tables: which training-free score orders real networks best, and what that is worth.

Networks are drawn from the tables (one of each isomorphism class), scored by every proxy in one pass, and compared with
what the tables say. Scores are kept one by one, so a cut run goes on where it was. Naive references (parameters, MACs)
are always among the proxies, and so is `combined`, the label-free combination of facts of the wiring.

What reads weights or images depends on the seed that drew them. With several weight seeds each has weights and
batches of its own; a network's score is the mean over the seeds, so one that is not finite in one of them ranks last.
What a seed draws does not depend on how many there are: a finished ranking goes on to more seeds.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from edgewright.core.ranking import as_table, band_mean, between, over_seeds, stand, within_bands
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.core.study import Candidate, Study
from edgewright.ir.signal import signal
from edgewright.job.rank.plan import RankPlan
from edgewright.proxy.combination import combine
from edgewright.proxy.resolve import proxies as known_proxies
from edgewright.proxy.resolve import resolve_proxies
from edgewright.search.scoring import ScoringJob, save_batches, score_architecture
from edgewright.space.base import TabularSpace
from edgewright.space.resolve import make_tabular
from edgewright.space.table import Table, read_table
from edgewright.task.base import InputSpec, Split, TaskSpec, kind_of
from edgewright.task.load import absolute, load_task

NAIVE = ("params", "macs")
COMBINED = "combined"
TIMED = 3  # networks that each proxy is timed on, alone
PLAN, RESULT = "rank_plan.json", "rank.json"
_NOTHING_SEEN = TaskSpec(
    name="no data", source="none", names=tuple(map(str, range(10))),
    inputs=(InputSpec(shape=(3, 32, 32), mean=(0.0,) * 3, std=(1.0,) * 3),),
    flip=False, num_train=0, num_val=0, num_test=0, digest="",
)  # fmt: skip


class RankResult(Frozen):
    """What came out; `rank.json` is this.

    proxies: by name, for the first table: spearman, kendall, top1_accuracy, ..., intervals (95 %), band_spearman and
    band_kendall (mean within ten narrow bands of MACs), seconds (a network, alone, one thread), or `missing`: why.
    With several weight seeds, where the score depends on them, also seed_spearman, of each seed alone, and
    seed_interval, 95 % of `spearman` over networks and seeds together; `intervals` are over networks.
    tables: the same by table, then by proxy.   between: Spearman between proxies, rows and columns in `names` order.
    """

    schema_: int = Field(default=1, alias="schema")
    space: str
    sample: int
    seed: int
    seconds: float
    weight_seeds: int = 1
    proxies: dict[str, dict[str, Any]]
    tables: dict[str, dict[str, dict[str, Any]]]
    names: tuple[str, ...]
    between: tuple[tuple[float | None, ...], ...]
    average_accuracy: dict[str, float]
    best_accuracy: dict[str, float]


@dataclass(frozen=True)
class Work:
    """What a ranking scores, and how.

    names: of the proxies.   rows: of the space.   first: for each row the one whose running scores are its own, too.
    """

    plan: RankPlan
    folder: RunFolder
    space: TabularSpace
    spec: TaskSpec
    names: tuple[str, ...]
    rows: tuple[int, ...]
    first: Mapping[int, int]

    @property
    def still(self) -> frozenset[str]:
        """The proxies that no seed changes."""
        return frozenset(proxy.name for proxy in resolve_proxies(self.names) if proxy.of_structure)

    def key(self, row: int, number: int = 0) -> str:
        """Under which the study has the scores of a network from the weight seed of that number."""
        key = self.space.at(row).key()
        return f"{key}#{number}" if number else key

    def seed(self, number: int) -> int:
        return derive(self.plan.seed, "weights", number) if number else self.plan.seed

    def batches(self, number: int) -> Path:
        return self.folder.checkpoints / (f"batches-{number}.safetensors" if number else "batches.safetensors")

    def job(self, row: int, names: tuple[str, ...], number: int = 0) -> ScoringJob:
        return ScoringJob(
            space=self.plan.space,
            spec=self.spec,
            architecture=self.space.at(row).model_dump(mode="json"),
            batches=self.batches(number),
            proxies=names,
            seed=self.seed(number),
            cheap=self.plan.cheap,
        )

    def asked(self) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Seed number, row and proxies of all that is to be scored; the first of twins comes before the others."""
        still = self.still
        for number in range(self.plan.weight_seeds):
            for row in self.rows:
                runs = self.first[row] == row
                names = tuple(name for name in self.names if (number == 0 if name in still else runs))
                if names:
                    yield number, row, names


def rank(plan: RankPlan, out: Path, *, workers: int | None = None, beside: Sequence[Path] = ()) -> RankResult:
    """Score the sample, compare with the tables, write rank.json and report.html into `out`.

    Args: beside: folders of finished rankings, whose tables the report shows next to these.
    Errors: BadInput for an unknown space, proxy or column, a table that does not match the space, a proxy that needs
        data or labels where there are none, a folder that holds another ranking, one beside that holds none.
    """
    from edgewright.report.parts.standings import write_standings  # plotly is slow to import

    folder = RunFolder(out)
    others = [(path.resolve().name, read_ranking(path)) for path in beside]
    spec = _spec(plan)
    space = make_tabular(plan.space, spec.input.shape[0], kind_of(spec).head.outputs, spec.size)
    tables = [read_table(table, space) for table in plan.tables]
    rows = tuple(sample_rows(space, tables, plan.sample, plan.seed))
    first = first_twins(space, rows) if plan.cheap else {row: row for row in rows}
    work = Work(plan, folder, space, spec, _names(plan), rows, first)
    _begin(folder, plan)
    began = time.perf_counter()
    with folder.locked(), Study(folder.study) as study, pool(workers) as crew:
        work = replace(work, names=_begun_with(work, study))
        scores = _score(work, study, crew)
        scores[COMBINED], each = _combined(space, rows)
        alone = _seconds_alone(work, study) | {COMBINED: each}
    result = compare(plan, space, tables, rows, scores, alone, time.perf_counter() - began)
    write_text(out / RESULT, result.to_json())
    one = {name: _one_each(values) for name, values in scores.items()}
    write_standings(folder.report, plan.tables, result, one, _truths(plan, tables, rows), others)
    return result


def read_ranking(folder: Path) -> RankResult:
    """What `rank` left in a folder.   Errors: BadInput where it left nothing, or it is no ranking of ours."""
    path = folder / RESULT
    if not path.is_file():
        raise BadInput(f"{folder}: holds no {RESULT}; give the folder of a finished edgewright rank")
    return RankResult.parse(read_json(path), str(path))


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


def _begun_with(work: Work, study: Study) -> tuple[str, ...]:
    """The work's proxies without those that are newer than what the study holds, which has no scores of them."""
    known = study.candidates()
    if not known:
        return work.names
    scored = set[str]().union(*(candidate.scores for candidate in known))
    network = work.space.build(work.space.at(work.rows[0]))
    newer = [p.name for p in resolve_proxies(work.names) if p.name not in scored and not p.undefined(network)]
    if newer:
        say(f"this ranking was begun without {', '.join(newer)}; for these take another folder")
    return tuple(name for name in work.names if name not in newer)


def _begin(folder: RunFolder, plan: RankPlan) -> None:
    """Make the folder, or find there the same plan, to go on with; only the number of weight seeds may be another."""
    path = folder.path / PLAN
    if not path.exists():
        folder.check_new()
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.checkpoints.mkdir(exist_ok=True)
        data = absolute(plan.data) if plan.data else None
        write_text(path, plan.model_copy(update={"data": data}).to_json())
        return
    found, free = RankPlan.parse(read_json(path), str(path)), {"data", "weight_seeds"}
    if found.model_dump(exclude=free) != plan.model_dump(exclude=free):
        raise BadInput(f"{folder.path}: holds another ranking (see {PLAN}); choose another folder")
    if found.weight_seeds != plan.weight_seeds:
        write_text(path, found.model_copy(update={"weight_seeds": plan.weight_seeds}).to_json())


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


def _score(work: Work, study: Study, crew: Pool) -> dict[str, np.ndarray]:
    """Every network's scores, as the study has them or as they are made now; NaN where a proxy has no value.

    (networks,) for what no seed changes, else (seeds, networks).
    """
    numbers = range(work.plan.weight_seeds)
    _draw_batches(work)
    known = {candidate.key: candidate.scores for candidate in study.candidates()}
    asked = list(work.asked())
    waiting = [(number, row, names) for number, row, names in asked if work.key(row, number) not in known]
    jobs = [work.job(row, names, number) for number, row, names in waiting]
    with progress("Scoring networks", total=len(asked)) as bar:
        bar.advance(len(asked) - len(waiting))
        for (number, row, _), own in zip(waiting, crew.imap(score_architecture, jobs), strict=True):
            # The first of the twins comes before the others, in this run or in the one that was cut.
            scores = own if work.first[row] == row else known[work.key(work.first[row])] | own
            key, architecture = work.key(row, number), work.space.at(row).model_dump(mode="json")
            study.record(Candidate(key=key, architecture=architecture, costs={}, scores=scores))
            known[key] = scores
            bar.advance()
    lines = [[known[work.key(row)] for row in work.rows]]
    lines += [[known.get(work.key(work.first[row], number), {}) for row in work.rows] for number in numbers[1:]]
    scores = {name: np.array([[one.get(name, np.nan) for one in line] for line in lines]) for name in work.names}
    still = work.still
    return {name: values[0] if name in still else values for name, values in scores.items()}


def _draw_batches(work: Work) -> None:
    """The batches of every seed, once; those that no seed changes need them for their shape."""
    waiting = [number for number in range(work.plan.weight_seeds) if not work.batches(number).exists()]
    if not waiting:
        return
    images, plan = _images(work.plan), work.plan
    for number in waiting:
        save_batches(work.batches(number), images, count=plan.batches, size=plan.images, seed=work.seed(number))


def _one_each(values: np.ndarray) -> np.ndarray:
    """One score a network: the mean over the seeds, where there are some."""
    return values.mean(axis=0) if values.ndim == 2 else values


def _seconds_alone(work: Work, study: Study) -> dict[str, float]:
    """Median seconds that each proxy takes for a network when it is asked for alone, building included, one thread."""
    noted, rows = study.read_note("seconds", {}), work.rows
    for name in work.names:
        if name not in noted:
            times = []
            for row in rows[:: max(1, len(rows) // TIMED)][:TIMED]:
                began = time.perf_counter()
                score_architecture(work.job(row, (name,)))
                times.append(time.perf_counter() - began)
            noted[name] = statistics.median(times)
            study.note("seconds", noted)
    return {name: noted[name] for name in work.names}


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
    """The statistics of every score on every table; scores (networks,), or (seeds, networks)."""
    every = known_proxies()
    lower = {name for name, proxy in every.items() if not proxy.higher_is_better}
    signed = {name: -values if name in lower else values for name, values in scores.items()}
    macs = _one_each(np.asarray(scores["macs"], dtype=float))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    truths = _truths(plan, tables, rows)
    for spelled, truth in truths.items():
        found[spelled] = {}
        for name, values in signed.items():
            standing = _standing(values, truth, macs, plan)
            if np.isnan(values).all():  # not a bad score: none at all, and the proxy says why
                why = every[name].undefined(space.build(space.at(rows[0])))
                standing = {"missing": why or "no value for any of these networks"}
            found[spelled][name] = {**standing, "seconds": seconds.get(name)}
    names, matrix = between({name: _one_each(values) for name, values in signed.items()})
    return RankResult(
        space=plan.space,
        sample=len(rows),
        seed=plan.seed,
        seconds=took,
        weight_seeds=plan.weight_seeds,
        proxies=found[plan.tables[0]],
        tables=found,
        names=tuple(names),
        between=tuple(tuple(None if np.isnan(x) else float(x) for x in line) for line in matrix),
        average_accuracy={spelled: float(truth.mean()) for spelled, truth in truths.items()},
        best_accuracy={spelled: float(truth.max()) for spelled, truth in truths.items()},
    )


def _standing(values: np.ndarray, truth: np.ndarray, macs: np.ndarray, plan: RankPlan) -> dict[str, Any]:
    """How one score, higher is better, orders one table."""
    one = _one_each(values)
    standing = as_table(stand(one, truth, resamples=plan.resamples, seed=plan.seed))
    if "missing" in standing:
        return standing
    bands = within_bands(one, truth, macs)
    standing |= {"band_spearman": band_mean(bands), "band_kendall": band_mean(bands, "kendall")}
    if values.ndim == 2 and not all(np.array_equal(line, values[0], equal_nan=True) for line in values):
        each, interval = over_seeds(values, truth, resamples=plan.resamples, seed=plan.seed)
        standing["seed_spearman"] = each
        standing |= {"seed_interval": list(interval)} if plan.resamples else {}
    return standing
