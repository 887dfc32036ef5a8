"""FLASH: a network and the prediction of its costs, from a few trained samples and a search of under a second.

Samples of one family are trained briefly and measured on the device; an accuracy law and linear cost laws are fitted on
them; SHGO finds the network that the laws promise most of inside the budget; that one is measured. Every sample is kept
as it comes, so a cut run goes on.
"""

import functools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from edgewright.core.architecture import Architecture
from edgewright.core.cost import Budget, Cost, show
from edgewright.core.data import Frozen, read_json
from edgewright.core.errors import BadInput, BudgetInfeasible, GateFailed
from edgewright.core.files import write_text
from edgewright.core.pool import Pool, pool
from edgewright.core.progress import progress, say
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.core.study import Study
from edgewright.device.base import FILE_BYTES, FILE_BYTES_PER_OP, Device
from edgewright.device.few.analytic import AnalyticModel, fit_analytic, network_features, peak_bytes
from edgewright.device.measure import Runs
from edgewright.device.resolve import make_device
from edgewright.ir.graph import count_macs, count_params
from edgewright.ir.to_onnx import to_onnx
from edgewright.job.base import Beginning, Ground, Job, Run, Stage, perform
from edgewright.job.codesign.plan import CodesignPlan
from edgewright.job.design.ground import MACS_PER_MS, refuse_if_broken
from edgewright.proxy.scores.nn_degree import nn_degree
from edgewright.search.finalists import TrainingJob, save_splits, train_finalist
from edgewright.search.strategies.flash import AccuracyLaw, fit_accuracy_law, minimise
from edgewright.space.base import Space
from edgewright.space.spaces.linked import DEPTHS, MOST_LINKS, NUM_CELLS, WIDTHS, LinkedSpace, linked_spaces, valid_cell
from edgewright.task.base import Task
from edgewright.task.load import absolute, load_task
from edgewright.train.recipe import recipe_for

ATTEMPTS = 3  # at a network that keeps its ceilings when it is measured
SPREAD = 40.0  # the largest sample has so many times the MACs of the smallest
# A cell is w / 8, d and t / 8; the groups of the second level are each cell, then all widths, depths and links.
UNIT = (8, 1, 8)
BOUNDS = [(WIDTHS[0] // 8, WIDTHS[1] // 8), DEPTHS, (0, MOST_LINKS // 8)] * NUM_CELLS
GROUPS = [tuple(range(3 * c, 3 * c + 3)) for c in range(NUM_CELLS)] + [tuple(range(k, 9, 3)) for k in range(3)]
STRENGTHS = ("nn_degree", "width", "shallowness", "depth")


class CodesignResult(Frozen):
    """What came out; `codesign.json` is this.

    predicted_accuracy: percent, after a training like the samples'.   costs: of the network, latency measured.
    predicted_latency_ms, energy_mj: by the laws.   search_seconds: of SHGO alone.   evaluations: points it asked for.
    """

    schema_: int = Field(default=1, alias="schema")
    architecture: dict[str, Any]
    description: str
    predicted_accuracy: float
    predicted_latency_ms: float
    energy_mj: float
    costs: dict[str, Cost]
    accuracy_law: AccuracyLaw
    latency_law: AnalyticModel
    search_seconds: float
    evaluations: int
    samples: int
    best_sample_accuracy: float
    seed: int


@dataclass
class CodesignGround(Ground):
    """What a co-design stands on. workers: processes that train samples, None for one a core."""

    plan: CodesignPlan
    task: Task
    device: Device
    space: LinkedSpace
    workers: int | None = None

    @functools.cached_property
    def samples(self) -> list[Any]:
        """The networks that are trained and measured."""
        return pick(self.space, self.plan.samples, _most_macs(self.plan.budget), self.plan.seed)


Work = Run[CodesignGround]


class Known(NamedTuple):
    """Of the samples: accuracy on val, percent, and median latency, ms."""

    accuracies: list[float]
    latencies: list[float]


def codesign(plan: CodesignPlan, out: str | Path, *, workers: int | None = None) -> CodesignResult:
    """Carry out a plan in `out`, or go on there; writes codesign.json and architecture.json.

    Errors: BadInput for what cannot be read or fewer samples than the laws need; BudgetInfeasible where no network of
    the family keeps the budget by the laws; GateFailed where none keeps it when measured.
    """
    return perform(Codesign(workers), plan.model_copy(update={"task": absolute(plan.task)}), out)


def train_samples(run: Work, _: None) -> list[float]:
    with pool(run.ground.workers) as crew:
        return _train(run, crew)


def measure_samples(run: Work, accuracies: list[float]) -> Known:
    return Known(accuracies, _measure(run.study, run.ground.device, run.ground.space, run.ground.samples))


def search(run: Work, known: Known) -> CodesignResult:
    """Fit the laws on the samples, and look for what they promise most of."""
    ground, space = run.ground, run.ground.space
    told = np.array([strengths(sample.cells) for sample in ground.samples])
    accuracy = fit_accuracy_law(STRENGTHS, told, known.accuracies)
    latency = fit_analytic(np.array([_features(space, sample) for sample in ground.samples]), known.latencies)
    result = _search(ground.plan, ground.device, space, accuracy, latency, max(known.accuracies))
    write_text(run.folder.architecture, space.read(result.architecture).model_dump_json(indent=2) + "\n")
    return result


@dataclass(frozen=True)
class Codesign(Job[CodesignPlan, CodesignGround, CodesignResult]):
    """workers: of `CodesignGround`."""

    workers: int | None = None

    plan_file = "codesign_plan.json"
    result_file = "codesign.json"
    reports = False
    stages = (Stage("train", train_samples), Stage("measure", measure_samples), Stage("search", search))

    def read_plan(self, folder: RunFolder) -> CodesignPlan:
        path = folder.path / self.plan_file
        return CodesignPlan.parse(read_json(path), str(path))

    def read_result(self, folder: RunFolder) -> CodesignResult:
        path = folder.path / self.result_file
        return CodesignResult.parse(read_json(path), str(path))

    def asked_again(self, folder: RunFolder, asked: CodesignPlan) -> CodesignPlan:
        if self.read_plan(folder) != asked:
            raise BadInput(f"{folder.path}: holds another codesign (see {self.plan_file}); choose another folder")
        return asked

    def survey(self, plan: CodesignPlan, start: Beginning) -> CodesignGround:
        device = make_device(plan.device, plan.threads)
        device.check(plan.budget.ceilings())
        task = load_task(plan.task, seed=plan.seed)
        space = _space(plan, task)
        refuse_if_broken(plan.budget, device.costs(space.graph(space.smallest())))
        return CodesignGround(plan, task, device, space, self.workers)


def _space(plan: CodesignPlan, task: Task) -> LinkedSpace:
    families = linked_spaces()
    if plan.family not in families:
        raise BadInput(f"unknown family '{plan.family}'; choose from {', '.join(families)}")
    return families[plan.family](task.spec.signature.inputs, task.kind.head)


def _most_macs(budget: Budget) -> float:
    ceilings = budget.ceilings()
    return min(2 * ceilings.get("macs", float("inf")), ceilings.get("latency", 1.0) * MACS_PER_MS)


def pick(space: LinkedSpace, count: int, most: float, seed: int) -> list[Any]:
    """`count` random networks spread evenly over the logarithm of their MACs, from the smallest the space has or
    1 / SPREAD of `most` up to `most`."""
    random = Random(derive(seed, "samples"))
    least = max(count_macs(space.graph(space.smallest())), most / SPREAD)
    most = max(most, 4 * least)
    return evenly_over_macs(space, count, least, most, random=random, tries=60 * count)


def evenly_over_macs(
    space: Space, count: int, least: float, most: float, *, random: Random, tries: int
) -> list[Architecture]:
    """Of `tries` random networks `count` with `least` to `most` MACs, spread evenly over the logarithm of their MACs,
    from the smallest up.   Errors: BadInput where too few lie inside."""
    inside: dict[str, tuple[float, Architecture]] = {}
    for _ in range(tries):
        architecture = space.sample(random)
        macs = count_macs(space.graph(architecture))
        if least <= macs <= most:
            inside[architecture.key()] = (np.log(macs), architecture)
    if len(inside) < count:
        raise BadInput(
            f"only {len(inside)} networks of {space.name} of {show('macs', least)} to {show('macs', most)} were found; "
            "ask for fewer"
        )
    picked = []
    for goal in np.linspace(np.log(least), np.log(most), count):
        nearest = min(inside, key=lambda key: abs(inside[key][0] - goal))
        picked.append(inside.pop(nearest)[1])
    return picked


def strengths(cells: Iterable[Any]) -> tuple[float, ...]:
    """What the accuracy law is told of a network: its NN-Degree, the width of the last cell, and the number of layers.

    The last comes twice, as 1 / depth and as depth: after a short training layers may cost accuracy, after a long one
    they may give it, and the fit takes the one that the samples show.
    """
    shapes = [(cell.width, cell.depth, cell.links) for cell in cells]
    layers = float(sum(depth for _, depth, _ in shapes))
    return nn_degree(shapes), float(shapes[-1][0]), 1 / layers, layers


def _train(run: Work, crew: Pool) -> list[float]:
    """Accuracy on val, percent, of every sample after its training."""
    study, checkpoints, plan, space = run.study, run.folder.checkpoints, run.ground.plan, run.ground.space
    task, picked = run.ground.task, run.ground.samples
    data = checkpoints / "data.safetensors"
    if not data.exists():
        save_splits(_part(task, plan), data)
    known = study.notes("accuracy:")
    waiting = [a for a in picked if a.key() not in known]

    def job(architecture: Architecture) -> TrainingJob:
        return TrainingJob(
            space=space.name,
            spec=task.spec,
            architecture=architecture.model_dump(mode="json"),
            recipe=recipe_for(task.spec, plan.epochs),
            data=data,
            checkpoint=checkpoints / f"{architecture.key()}.safetensors",
            seed=plan.seed,
            epochs=plan.epochs,
            seconds=None,
        )

    with progress("Training samples", total=len(picked)) as bar:
        bar.advance(len(picked) - len(waiting))
        for architecture, found in zip(waiting, crew.imap(train_finalist, [job(a) for a in waiting]), strict=True):
            known[architecture.key()] = found["val"]
            study.note(f"accuracy:{architecture.key()}", found["val"])
            (checkpoints / f"{architecture.key()}.safetensors").unlink(missing_ok=True)
            bar.advance()
    return [known[a.key()] for a in picked]


def _part(task: Task, plan: CodesignPlan) -> Task:
    if plan.images is None or plan.images >= len(task.train):
        return task
    generator = torch.Generator().manual_seed(derive(plan.seed, "part"))
    chosen = torch.randperm(len(task.train), generator=generator)[: plan.images]
    return Task(task.spec, task.train.take(chosen), task.val, task.test)


def _measure(study: Study, device: Device, space: LinkedSpace, picked: Sequence[Any]) -> list[float]:
    """Median latency of every sample, ms."""
    known, here = study.notes("latency:"), device.identity()
    device.refuse_other(study.read_note("device", here))
    study.note("device", here)
    with progress("Measuring samples", total=len(picked)) as bar:
        for architecture in picked:
            if architecture.key() not in known:
                (found,) = device.measure([to_onnx(space.graph(architecture))], Runs(most=200))
                known[architecture.key()] = found.median_ms
                study.note(f"latency:{architecture.key()}", found.median_ms)
            bar.advance()
    return [known[a.key()] for a in picked]


def _features(space: LinkedSpace, architecture: Any) -> np.ndarray:
    return network_features(graph for _, graph in space.blocks(architecture))


class Promise:
    """What the laws say of a point of the search: an accuracy, and how far the budget is broken."""

    def __init__(
        self,
        space: LinkedSpace,
        budget: Budget,
        accuracy: AccuracyLaw,
        latency: AnalyticModel,
        aim: float,
        device: Device | None = None,
    ) -> None:
        """device: whose own law of energy holds, where it has one."""
        self._space, self._accuracy, self._latency = space, accuracy, latency
        self._device = device if device is not None and "energy" in device.gives else None
        self._ceilings = budget.ceilings()
        self._aim = aim
        self.asked = 0
        self._block = functools.lru_cache(maxsize=100_000)(self._costs_of_cell)

    def cells(self, point: Sequence[int]) -> tuple[Any, ...]:
        triples = [point[i : i + 3] for i in range(0, len(point), 3)]
        return tuple(valid_cell(self._space.name, 8 * w, d, 8 * t) for w, d, t in triples)

    def value(self, point: Sequence[int]) -> float:
        """Minus the accuracy, plus a penalty on what breaks the budget; smaller is better."""
        self.asked += 1
        cells = self.cells(point)
        promised = float(self._accuracy.predict(np.array(strengths(cells))))
        return -promised + 100 * self.excess(cells)

    def excess(self, cells: Sequence[Any]) -> float:
        found = self.costs(cells)
        return sum(
            max(0.0, found[name] / (ceiling * (self._aim if name == "latency" else 1)) - 1)
            for name, ceiling in self._ceilings.items()
            if name in found  # the others are the same of any network: `survey` has looked
        )

    def costs(self, cells: Sequence[Any]) -> dict[str, float]:
        """Latency by the law; the rest counted, block by block."""
        parts = [self._block(index, cells[index - 1].width if index else 0, cell) for index, cell in enumerate(cells)]
        parts.append(self._block(-1, cells[-1].width, None))
        found = np.sum([part[0] for part in parts], axis=0)
        found[0] = 1
        params = sum(part[3] for part in parts)
        return {
            "latency": self._latency.latency_ms(found),
            "energy": self._latency.energy_mj(found) if self._device is None else sum(part[5] for part in parts),
            "peak_memory": max(part[1] for part in parts),
            "macs": sum(part[2] for part in parts),
            "params": params,
            "size": 4 * params + FILE_BYTES_PER_OP * sum(part[4] for part in parts) + FILE_BYTES,
        }

    def _costs_of_cell(self, index: int, source: int, cell: Any) -> tuple[np.ndarray, int, int, int, int, float]:
        graphs = self._space.part(index, source, cell)
        macs, params = sum(map(count_macs, graphs)), sum(map(count_params, graphs))
        operators = sum(len(graph.ops) for graph in graphs)
        told = self._device
        energy = 0.0 if told is None else sum(told.costs(graph)["energy"].value for graph in graphs)
        return network_features(graphs), peak_bytes(graphs), macs, params, operators, energy


def coarse(u: Sequence[float]) -> list[float]:
    """Four numbers in [0, 1] for all nine: first width, growth from cell to cell, depth, links."""
    width = WIDTHS[0] / 8 * (WIDTHS[1] / WIDTHS[0]) ** u[0]
    growth = 1 + u[1]
    depth = DEPTHS[0] * (DEPTHS[1] / DEPTHS[0]) ** u[2]
    point: list[float] = []
    for index in range(NUM_CELLS):
        point += [width * growth**index, depth, u[3] * MOST_LINKS / 8]
    return point


def _search(
    plan: CodesignPlan, device: Device, space: LinkedSpace, accuracy: AccuracyLaw, latency: AnalyticModel, best: float
) -> CodesignResult:
    """The best promise inside the budget that keeps it when measured; each miss aims lower by as much as it missed."""
    aim = 0.97
    for _ in range(ATTEMPTS):
        promise = Promise(space, plan.budget, accuracy, latency, aim, device)
        began = time.perf_counter()
        point, _ = minimise(promise.value, BOUNDS, GROUPS, coarse=coarse, num_coarse=4)
        seconds = time.perf_counter() - began
        cells = promise.cells(point)
        if promise.excess(cells) > 0:
            raise BudgetInfeasible(f"no network of {space.name} keeps the budget, by the laws fitted on the samples")
        architecture = space.of(cells)
        graph = space.graph(architecture)
        (measured,) = device.measure([to_onnx(graph)], Runs(most=300))
        costs = {"latency": measured.cost(), **device.costs(graph)}
        broken = plan.budget.broken(costs)
        if not broken:
            found = promise.costs(cells)
            return CodesignResult(
                architecture=architecture.model_dump(mode="json"),
                description=space.describe(architecture),
                predicted_accuracy=float(accuracy.predict(np.array(strengths(cells)))),
                predicted_latency_ms=found["latency"],
                energy_mj=found["energy"],
                costs=costs,
                accuracy_law=accuracy,
                latency_law=latency,
                search_seconds=seconds,
                evaluations=promise.asked,
                samples=plan.samples,
                best_sample_accuracy=best,
                seed=plan.seed,
            )
        say(f"measured, the network breaks the budget ({'; '.join(broken)}); aiming lower")
        aim *= 0.97 / max(1.0, *plan.budget.share_used(costs).values())
    raise GateFailed(f"none of {ATTEMPTS} networks keeps the budget when measured ({'; '.join(broken)})")
