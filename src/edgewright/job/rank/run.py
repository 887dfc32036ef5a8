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
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch

from edgewright.core.data import read_json
from edgewright.core.errors import BadInput
from edgewright.core.pool import Pool, pool
from edgewright.core.progress import progress, say
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.core.study import Candidate, Study
from edgewright.ir.signal import signal
from edgewright.job.base import Beginning, Ground, Job, Run, Stage, perform
from edgewright.job.rank.compare import RankResult, compare, one_each, truths_of
from edgewright.job.rank.plan import RankPlan
from edgewright.proxy.combination import combine
from edgewright.proxy.resolve import proxies as known_proxies
from edgewright.proxy.resolve import resolve_proxies
from edgewright.search.scoring import ScoringJob, save_batches, score_architecture
from edgewright.space.base import TabularSpace
from edgewright.space.resolve import make_tabular
from edgewright.space.table import Ceiling, Table, inside, read_ceiling, read_table
from edgewright.task.base import InputSpec, Split, TaskSpec, kind_of
from edgewright.task.load import absolute, load_task

NAIVE = ("params", "macs")
COMBINED = "combined"
TIMED = 3  # networks that each proxy is timed on, alone
_NOTHING_SEEN = TaskSpec(
    name="no data", source="none", names=tuple(map(str, range(10))),
    inputs=(InputSpec(shape=(3, 32, 32), mean=(0.0,) * 3, std=(1.0,) * 3),),
    flip=False, num_train=0, num_val=0, num_test=0, digest="",
)  # fmt: skip


@dataclass
class RankGround(Ground):
    """What a ranking scores, and how.

    names: of the proxies.   rows: of the space.   first: for each row the one whose running scores are its own, too.
    folder: for batches.   others: rankings that the report shows beside this one, by their folders' names.
    """

    plan: RankPlan
    folder: RunFolder
    space: TabularSpace
    spec: TaskSpec
    tables: Sequence[Table]
    names: tuple[str, ...]
    rows: tuple[int, ...]
    first: Mapping[int, int]
    workers: int | None
    others: Sequence[tuple[str, "RankResult"]]

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


Work = Run[RankGround]


def rank(plan: RankPlan, out: str | Path, *, workers: int | None = None, beside: Sequence[Path] = ()) -> RankResult:
    """Score the sample, compare with the tables, write rank.json and report.html into `out`, or go on there.

    Args: beside: folders of finished rankings, whose tables the report shows next to these.
    Errors: BadInput for an unknown space, proxy or column, a table that does not match the space, a proxy that needs
        data or labels where there are none, a folder that holds another ranking, one beside that holds none.
    """
    plan = plan.model_copy(update={"data": absolute(plan.data) if plan.data else None})
    return perform(Rank(RunFolder(Path(out)), workers, tuple(beside)), plan, out)


class Scored(NamedTuple):
    """scores: of every proxy, (networks,) or (seeds, networks).   seconds: that each takes for a network."""

    scores: dict[str, np.ndarray]
    seconds: dict[str, float]


def score(run: Work, _: None) -> Scored:
    """Every network by every proxy; what is scored already is taken from the study."""
    work = run.ground
    with pool(work.workers) as crew:
        scores = _score(work, run.study, crew)
    scores[COMBINED], each = _combined(work.space, work.rows)
    return Scored(scores, _seconds_alone(work, run.study) | {COMBINED: each})


def judge(run: Work, scored: Scored) -> RankResult:
    """The statistics, and the report that shows the scores themselves."""
    from edgewright.report.parts.standings import write_standings  # plotly is slow to import

    work, plan = run.ground, run.ground.plan
    result = compare(plan, work.space, work.tables, work.rows, scored.scores, scored.seconds, run.watch.spent())
    one = {name: one_each(values) for name, values in scored.scores.items()}
    truths = truths_of(plan, work.tables, work.rows)
    write_standings(run.folder.report, plan.tables, result, one, truths, work.others)
    return result


@dataclass(frozen=True)
class Rank(Job[RankPlan, RankGround, RankResult]):
    """folder: where it goes on.   workers: processes, None for one a core.   beside: of `rank`."""

    folder: RunFolder
    workers: int | None = None
    beside: tuple[Path, ...] = ()

    plan_file = "rank_plan.json"
    result_file = "rank.json"
    stages = (Stage("score", score), Stage("judge", judge))

    def read_plan(self, folder: RunFolder) -> RankPlan:
        path = folder.path / self.plan_file
        return RankPlan.parse(read_json(path), str(path))

    def read_result(self, folder: RunFolder) -> RankResult:
        return read_ranking(folder.path)

    def stands(self, folder: RunFolder) -> bool:
        """Never: scores are kept, and the statistics are quick; what stands beside them may be other now."""
        return False

    def asked_again(self, folder: RunFolder, asked: RankPlan) -> RankPlan:
        """The number of weight seeds may be another, and the data may have moved."""
        begun, free = self.read_plan(folder), {"data", "weight_seeds"}
        if begun.model_dump(exclude=free) != asked.model_dump(exclude=free):
            raise BadInput(f"{folder.path}: holds another ranking (see {self.plan_file}); choose another folder")
        return asked

    def survey(self, plan: RankPlan, start: Beginning) -> RankGround:
        others = [(path.resolve().name, read_ranking(path)) for path in self.beside]
        spec = _spec(plan)
        space = make_tabular(plan.space, spec.input.shape[0], kind_of(spec).head.outputs, spec.size)
        tables = [read_table(table, space) for table in plan.tables]
        ceilings = [read_ceiling(ceiling, space) for ceiling in plan.ceilings]
        rows = tuple(sample_rows(space, tables, plan.sample, plan.seed, ceilings))
        first = first_twins(space, rows) if plan.cheap else {row: row for row in rows}
        names = _names(plan)
        ground = RankGround(plan, self.folder, space, spec, tables, names, rows, first, self.workers, others)
        if start.begun is not None:
            ground.names = _begun_with(ground, start.begun.study)
        return ground


def read_ranking(folder: Path) -> RankResult:
    """What `rank` left in a folder.   Errors: BadInput where it left nothing, or it is no ranking of ours."""
    path = folder / Rank.result_file
    if not path.is_file():
        raise BadInput(f"{folder}: holds no {path.name}; give the folder of a finished edgewright rank")
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


def _begun_with(work: RankGround, study: Study) -> tuple[str, ...]:
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


def sample_rows(
    space: TabularSpace, tables: Sequence[Table], count: int | None, seed: int, ceilings: Sequence[Ceiling] = ()
) -> list[int]:
    """`count` random rows that every table has and that keep the ceilings, each the first of its isomorphism class;
    None gives all of them."""
    known = np.zeros(len(space), dtype=bool)
    known[[*set.intersection(*(set(table.indices.tolist()) for table in tables))]] = True
    rows = [row for row in np.flatnonzero(inside(ceilings, known)).tolist() if space.canonical(row) == row]
    if len(rows) < 10:
        kept = " and that keep the ceilings" if ceilings else ""
        raise BadInput(f"{tables[0].source}: only {len(rows)} networks that every table has{kept}; a ranking needs 10")
    return rows if count is None or count >= len(rows) else sorted(Random(derive(seed, "rank")).sample(rows, count))


def first_twins(space: TabularSpace, rows: Sequence[int]) -> dict[int, int]:
    """For each of `rows` the first of them that computes the same with fresh weights."""
    found: dict[int, int] = {}
    return {row: found.setdefault(space.twin(row), row) for row in rows}


def _score(work: RankGround, study: Study, crew: Pool) -> dict[str, np.ndarray]:
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


def _draw_batches(work: RankGround) -> None:
    """The batches of every seed, once; those that no seed changes need them for their shape."""
    waiting = [number for number in range(work.plan.weight_seeds) if not work.batches(number).exists()]
    if not waiting:
        return
    images, plan = _images(work.plan), work.plan
    for number in waiting:
        save_batches(work.batches(number), images, count=plan.batches, size=plan.images, seed=work.seed(number))


def _seconds_alone(work: RankGround, study: Study) -> dict[str, float]:
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
