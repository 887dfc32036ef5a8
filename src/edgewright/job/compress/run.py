"""Compression: a run's network, made to keep ceilings at the least loss, and handed out as a run again.

    network -> exact rewrites -> int8 -> pruned, or blocks merged, and taught again -> the mildest file that fits

Cheap things first: what needs no training is measured, and if it is enough nothing is trained. What needs training is
narrowed down to the ceilings by the measured time of the untrained network before it learns, from the network as it
was. Val chooses; the held-out test images are looked at once, when the file is there.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Unpack

from edgewright.compress.planner import read_plan
from edgewright.core.cost import Budget
from edgewright.core.data import read_json
from edgewright.core.errors import BadInput, BudgetInfeasible, EdgewrightError, GateFailed
from edgewright.core.files import sha256
from edgewright.core.home import user_path
from edgewright.core.progress import say
from edgewright.core.run import RunFolder
from edgewright.core.study import Study
from edgewright.job.base import Beginning, Job, Run, Stage, perform
from edgewright.job.base import resume as go_on
from edgewright.job.compress.decide import NothingKeeps, decide
from edgewright.job.compress.files import EXACT, KEEPS, SECONDS, files_of, finished, refusal
from edgewright.job.compress.found import Decided, File, Trial
from edgewright.job.compress.ground import CompressGround, survey
from edgewright.job.compress.plan import CompressOptions, CompressPlan
from edgewright.job.compress.result import CompressResult, result_of
from edgewright.job.compress.ship import Made, fitting, ship
from edgewright.job.compress.train import LEAST_SECONDS, Learned, learn
from edgewright.report.parts.compression import write_compression
from edgewright.train.checkpoint import model_signature
from edgewright.train.loop import Diverged

DEFAULT_MINUTES = 20.0
FINAL = (BudgetInfeasible, GateFailed, Diverged)  # going on would only come to the same again
LOOKING = 0.3  # of the minutes, after which what to train is not narrowed down further
SHIPPING_SECONDS = 10.0  # for the report and what is small, set aside from the minutes allowed


def compress_run(
    source: str | Path,
    *,
    out: str | Path,
    max_drop: float = 1.0,
    minutes: float | None = None,
    **options: Unpack[CompressOptions],
) -> CompressResult:
    """Compress a run's network until it keeps ceilings, losing at most `max_drop` points; a run again, in `out`.

        result = edgewright.compress_run("runs/c10", latency_ms=0.15, max_drop=1.0, minutes=20, out="runs/c10s")

    Args:
        source: folder of a finished run, of `design`, `adapt` or `compress`.
        out: folder to make.
        max_drop: points of accuracy that may be lost in all, on val when choosing and on test in the end.
        minutes: wall-clock limit (default 20, unless `epochs` is given).
        options: ceilings, at least one (see `core.cost.Ceilings`); and any other
            field of `CompressPlan`: see `CompressOptions`, which an editor completes.
    Returns: figures before and after, everything that was tried, what was done to which layer (`CompressResult`).
    Errors: BadInput; BudgetInfeasible, with the trade curve, where nothing keeps both ceilings and accuracy; GateFailed
        where the file that came of it, measured or tested, does not; Diverged where a network cannot learn with
        these options. Nothing is left in `out` after any of them; what was cut, or ended for want of disk or of a
        device, is there to be gone on with (`resume`).
    """
    budget = {name: value for name, value in options.items() if name in Budget.model_fields and value is not None}
    others = {name: value for name, value in options.items() if name not in Budget.model_fields}
    data = {"source": str(source), "max_drop": max_drop, "minutes": minutes, "budget": budget, **others}
    return run(resolved(CompressPlan.parse(data, "compress")), Path(out))


def resolved(asked: CompressPlan) -> CompressPlan:
    """With the source named from the root, and the time limit filled in, unless epochs bound it."""
    minutes = DEFAULT_MINUTES if asked.minutes is None and asked.epochs is None else asked.minutes
    source = str(user_path(asked.source).absolute())
    return asked.model_copy(update={"source": source, "minutes": minutes})


def dry_run(asked: CompressPlan) -> tuple[CompressGround, Decided]:
    """What would be done, measured as far as it can be without training; nothing is written."""
    with tempfile.TemporaryDirectory(prefix="edgewright-") as scratch:
        ground = survey(asked, Path(scratch))
        return ground, decide(ground)[0]


def run(asked: CompressPlan, out: str | Path, began: float | None = None) -> CompressResult:
    """Carry out what is asked in a new folder; began: `time.monotonic()` from when the minutes count, now by default.

    The folder is made when it is known that there is a way.
    """
    return perform(Compress(), asked, out, began=began)


def resume(out: str | Path, began: float | None = None) -> CompressResult:
    """Go on with a compression that was cut; a finished one gives its result at once."""
    return go_on(Compress(), out, began=began)


Work = Run[CompressGround]


def teach(run: Work, _: None) -> list[Learned]:
    """The trainings that are needed, none where exact rewrites and a type are enough."""
    decided = run.ground.decided
    for remark in decided.remarks:
        say(remark)
    return [] if decided.ready else learn(run.ground, decided.ways, run.folder.checkpoints, _seconds_left(run))


def make_files(run: Work, learned: list[Learned]) -> Made:
    """The network as it ships, as a file of each type."""
    ground = run.ground
    network, plan, merge, blocks = ground.model, None, ground.decided.merge, tuple[str, ...]()
    if learned:
        way = learned[-1].way
        network, plan, merge, blocks = learned[-1].network, read_plan(way.plan, way.name), way.merge, way.blocks
    final, exact = finished(ground, network, merge, blocks)
    files = None if learned else ground.files
    if files is None:
        files = files_of(ground, final, exact, ground.scratch / "final", learned[-1].rounded if learned else None)
    return Made(learned, final, exact if plan is None else plan.then(exact), files)


def hand_out(run: Work, made: Made) -> CompressResult:
    """The mildest file that keeps all that was asked, in a folder that is a run."""
    ground = run.ground
    file = fitting(ground, made.files)
    trials = _trials(ground, made, file)
    if file is None:
        raise _failure(ground, made, trials)
    return result_of(run, made, ship(run.folder, ground, made, file), trials)


class Compress(Job[CompressPlan, CompressGround, CompressResult]):
    plan_file = "compress_plan.json"
    result_file = "compressed.json"
    stages = (Stage("train", teach), Stage("measure", make_files), Stage("deploy", hand_out))
    hopeless = (BudgetInfeasible, GateFailed, Diverged)  # going on would only come to the same again
    nothing_left_after = (*hopeless, BadInput)

    def read_plan(self, folder: RunFolder) -> CompressPlan:
        path = folder.path / self.plan_file
        if not path.exists():
            raise BadInput(f"{folder.path}: not a compression's folder (it holds no {path.name})")
        return CompressPlan.parse(read_json(path), str(path))

    def read_result(self, folder: RunFolder) -> CompressResult:
        path = folder.path / self.result_file
        result = CompressResult.parse(read_json(path), str(path))
        for name in result.saved:
            folder.check_file(folder.path / name)
        return result

    def survey(self, plan: CompressPlan, start: Beginning) -> CompressGround:
        scratch = Path(start.open.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-")))
        ground = survey(plan, scratch)
        noted = None if start.begun is None else _noted(start.begun.study, ground)
        if noted is not None:
            ground.decided, ground.files = noted, None
        else:
            ground.decided, files = decide(ground, start.after(LOOKING))
            ground.files = files if ground.decided.ready else None
        return ground

    def begin(self, run: Work) -> None:
        """What was measured: a resumed compression must go on with the same networks."""
        run.study.note("identity", _identity(run.ground))
        run.study.note("device", run.ground.device.identity())
        run.study.note("decided", run.ground.decided.model_dump(mode="json"))

    def report(self, run: Work, result: CompressResult) -> None:
        write_compression(run.folder.report, result)

    def tidy(self, folder: RunFolder) -> None:
        shutil.rmtree(folder.checkpoints, ignore_errors=True)


def _noted(study: Study, ground: CompressGround) -> Decided | None:
    """What was decided when this was begun.   Errors: BadInput where it was for another network, data or device."""
    if (identity := study.read_note("identity")) is None:
        return None
    if identity != _identity(ground):
        raise BadInput(
            f"{study.path}: the network or the data changed since this was begun; compress into another folder"
        )
    if "latency" in ground.plan.budget.ceilings():
        ground.device.refuse_other(study.read_note("device"))
    return Decided.parse(study.read_note("decided"), str(study.path))


def _identity(ground: CompressGround) -> dict[str, Any]:
    return {
        "data": ground.task.spec.digest,
        "network": model_signature(ground.model),
        "weights": sha256(ground.source.folder.model),
    }


def _seconds_left(run: Run[CompressGround]) -> float | None:
    """For the training: what is left of the minutes when the files have been made, measured and tested."""
    ground = run.ground
    if ground.plan.minutes is None:
        return None
    images = len(ground.samples.calibration) + 4 * len(ground.samples.comparison) + 2 * len(ground.task.test)
    shipping = SHIPPING_SECONDS + 2 * SECONDS * min(1.0, ground.own_ms / 10) + 1e-3 * ground.own_ms * images
    return max(LEAST_SECONDS, run.watch.left() - shipping)


def _trials(ground: CompressGround, made: Made, shipped: File | None) -> tuple[Trial, ...]:
    """Everything that was tried, with the figures and the verdicts of the files as they are now: without training they
    were among the trials before, and a resumed compression has measured them anew."""
    stem = f"{made.learned[-1].way.name}, taught again" if made.learned else EXACT
    now: dict[str, Trial] = {}
    for file in made.files:
        name = f"{stem}, {file.kind}"
        now[name] = file.trial(name, "handed out" if file is shipped else refusal(ground, file) or KEEPS)
    return (*(now.pop(trial.name, trial) for trial in ground.decided.trials), *now.values())


def _failure(ground: CompressGround, made: Made, trials: tuple[Trial, ...]) -> EdgewrightError:
    """Nothing can be handed out: for what was lost, or for what was measured."""
    learned, files = made.learned, made.files
    wanted = [file for file in files if not learned or file.kind == learned[-1].way.type] or files
    lost = [file for file in wanted if file.refused]
    if lost:
        both = lost[0].figure < ground.floor - 1e-9
        what = "nothing keeps both the ceilings and the accuracy" if both else "nothing can be handed out"
        return NothingKeeps(f"{what}: {lost[0].kind} {lost[0].refused}", trials)
    reasons = "; ".join(f"{file.kind}: {refusal(ground, file)}" for file in wanted)
    return GateFailed(f"what was to be handed out does not keep its word when it is measured ({reasons})")
