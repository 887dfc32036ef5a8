"""What a compression found out: `compressed.json`, field by field."""

from typing import Any

from pydantic import Field

from edgewright.compress.base import Plan as Rewriting
from edgewright.compress.rewrites.drop_block import Drop
from edgewright.compress.rewrites.prune_channels import Prune
from edgewright.core.cost import Budget, Cost
from edgewright.core.data import Frozen
from edgewright.core.result import TEST, VAL, Export, Written
from edgewright.device.compare import Ratio
from edgewright.job.base import Run
from edgewright.job.compress.files import EXACT
from edgewright.job.compress.found import Trial
from edgewright.job.compress.ground import CompressGround
from edgewright.job.compress.ship import Handed, Made
from edgewright.train.record import Trained


class Figures(Frozen):
    """A file. type: of its numbers.   test, val: the figure that decides, of the file itself."""

    type: str
    costs: dict[str, Cost]
    test: float = Field(validation_alias=TEST)
    val: float = Field(validation_alias=VAL)
    note: str = ""


class Learning(Frozen):
    """A training. name: of the way it was on.   trial: whether it was a brief one, to choose among ways."""

    name: str
    trial: bool
    trained: Trained


class Width(Frozen):
    """A layer that lost channels or heads. layer: the one that makes them."""

    layer: str
    before: int
    after: int


class CompressResult(Written):
    """What came out; `compressed.json` is this.

    ratio: time of the file over that of the file before, None where nothing was measured.   trials: the trade curve,
    everything that was tried.   rewrites: what was done, a line each.   widths: layers whose channels changed.
    dropped: whole blocks that went.
    remarks: what was looked at and left.   learned: trainings, the last one is what is handed out; empty where none
    was needed.   saved: file names and their SHA-256.
    """

    source: str
    task: dict[str, Any]
    device: dict[str, Any]
    budget: Budget
    max_drop: float
    before: Figures
    after: Figures
    ratio: Ratio | None
    way: str
    trials: tuple[Trial, ...]
    rewrites: tuple[str, ...]
    widths: tuple[Width, ...]
    dropped: tuple[str, ...]
    remarks: tuple[str, ...]
    learned: tuple[Learning, ...]
    export: Export
    seconds: float
    seed: int
    saved: dict[str, str]


def result_of(run: Run[CompressGround], made: Made, handed: Handed, trials: tuple[Trial, ...]) -> CompressResult:
    """Everything together."""
    ground, file, learned = run.ground, handed.file, made.learned
    asked, before = ground.plan, ground.decided.trials[0]
    return CompressResult(
        source=ground.source.folder.path.name,
        task=ground.task.spec.model_dump(mode="json"),
        device=ground.device.identity(),
        budget=asked.budget,
        max_drop=asked.max_drop,
        before=Figures(
            type=before.type,
            costs=before.costs | {"latency": file.own.cost()},
            test=handed.test_before,
            val=ground.figure_before,
        ),
        after=Figures(
            type=file.kind,
            costs=file.costs,
            test=handed.test_after,
            val=file.figure,
            note=file.note,
        ),
        ratio=file.ratio,
        way=learned[-1].way.name if learned else EXACT,
        trials=trials,
        rewrites=tuple(str(rewrite) for rewrite in made.plan.rewrites),
        widths=widths(made.plan),
        dropped=tuple(rewrite.layers[-1] for rewrite in made.plan.rewrites if isinstance(rewrite, Drop)),
        remarks=ground.decided.remarks,
        learned=tuple(
            Learning(name=one.way.name, trial=number < len(learned) - 1, trained=one.trained)
            for number, one in enumerate(learned)
        ),
        export=handed.export,
        seconds=run.watch.spent(),
        seed=asked.seed,
        saved=run.folder.read_result().files,
    )


def widths(plan: Rewriting) -> tuple[Width, ...]:
    """The layers that a plan makes narrower, in its order."""
    cuts = [rewrite for rewrite in plan.rewrites if isinstance(rewrite, Prune)]
    return tuple(Width(layer=cut.group, before=cut.units, after=len(cut.kept)) for cut in cuts)
