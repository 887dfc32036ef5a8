"""Compression: a run's network, made to keep ceilings at the least loss, and handed out as a run again.

    network -> exact rewrites -> int8 -> pruned, or blocks merged, and taught again -> the mildest file that fits

Cheap things first: what needs no training is measured, and if it is enough nothing is trained. What needs training is
narrowed down to the ceilings by the measured time of the untrained network before it learns, from the network as it
was. Val chooses; the held-out test images are looked at once, when the file is there.
"""

import contextlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from edgewright.compress.planner import read_plan
from edgewright.core.cost import Budget
from edgewright.core.data import read_json
from edgewright.core.errors import BadInput, BudgetInfeasible, EdgewrightError, GateFailed
from edgewright.core.files import sha256, write_text
from edgewright.core.home import user_path
from edgewright.core.progress import say
from edgewright.core.run import RunFolder
from edgewright.job.compress.decide import Decided, NothingKeeps, decide
from edgewright.job.compress.files import EXACT, KEEPS, SECONDS, File, Trial, files_of, finished, refusal
from edgewright.job.compress.ground import Ground, survey
from edgewright.job.compress.plan import CompressOptions, CompressPlan
from edgewright.job.compress.result import CompressResult, result_of
from edgewright.job.compress.ship import Ready, fitting, ship
from edgewright.job.compress.train import LEAST_SECONDS, Learned, learn
from edgewright.report.parts.compression import write_compression
from edgewright.train.checkpoint import model_signature
from edgewright.train.loop import Diverged

RESULT = "compressed.json"
NOTES = "decided.json"  # among the checkpoints
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
        options: ceilings, at least one: latency_ms, size_mb, peak_memory_kb, macs, params (see `Budget`); and any other
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


def dry_run(asked: CompressPlan) -> tuple[Ground, Decided]:
    """What would be done, measured as far as it can be without training; nothing is written."""
    ground = survey(asked)
    with _scratch() as folder:
        return ground, decide(ground, folder)[0]


def run(asked: CompressPlan, out: Path, began: float | None = None) -> CompressResult:
    """Carry out what is asked in a new folder; began: `time.monotonic()` from when the minutes count, now by default.

    The folder is made when it is known that there is a way.
    """
    began = time.monotonic() if began is None else began
    folder = RunFolder(out)
    folder.check_new()
    ground = survey(asked)
    with _scratch() as scratch:
        until = math.inf if asked.minutes is None else began + 60 * asked.minutes * LOOKING
        decided, files = decide(ground, scratch, until)
        existed = folder.path.exists()
        with folder.locked():
            folder.check_new()  # again: another process may have begun here meanwhile
            _note(folder, ground, decided)
            write_text(folder.compression, asked.to_json())  # what holds this can be gone on with
            with _nothing_left(folder, existed, (*FINAL, BadInput)):
                return _walk(folder, ground, decided, files if decided.ready else None, scratch, began)


def resume(out: Path, began: float | None = None) -> CompressResult:
    """Go on with a compression that was cut; a finished one gives its result at once."""
    began = time.monotonic() if began is None else began
    folder = RunFolder(Path(out))
    if not folder.compression.exists():
        raise BadInput(f"{out}: not a compression's folder (it holds no {folder.compression.name})")
    if (folder.path / RESULT).exists() and folder.report.exists():
        return _finished(folder)
    ground = survey(CompressPlan.parse(read_json(folder.compression), str(folder.compression)))
    with folder.locked(), _scratch() as scratch:
        folder.sweep()
        decided = _read_note(folder, ground)
        with _nothing_left(folder, True, FINAL):
            return _walk(folder, ground, decided, None, scratch, began)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _nothing_left(folder: RunFolder, existed: bool, final: tuple[type[EdgewrightError], ...]) -> Iterator[None]:
    """Where it turns out that there is nothing to hand out (`final`), the folder is as it was before."""
    try:
        yield
    except final:
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        begun = (folder.plan, folder.result, folder.onnx, folder.float_onnx, folder.model, folder.rewrites)
        for path in (folder.compression, *begun):  # a resumed one may have been killed while it wrote these
            path.unlink(missing_ok=True)
        if not existed:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _finished(folder: RunFolder) -> CompressResult:
    result = CompressResult.parse(read_json(folder.path / RESULT), str(folder.path / RESULT))
    for name in result.saved:
        folder.check_file(folder.path / name)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)  # of one that was killed at its very end
    return result


def _note(folder: RunFolder, ground: Ground, decided: Decided) -> None:
    """What was measured: a resumed compression must go on with the same networks."""
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    note = {
        "identity": _identity(ground),
        "device": ground.device.identity(),
        "decided": decided.model_dump(mode="json"),
    }
    write_text(folder.checkpoints / NOTES, json.dumps(note))


def _read_note(folder: RunFolder, ground: Ground) -> Decided:
    path = folder.checkpoints / NOTES
    note = read_json(path)
    if not isinstance(note, dict) or note.get("identity") != _identity(ground):
        raise BadInput(f"{path}: the network or the data changed since this was begun; compress into another folder")
    if ground.asked.budget.latency_ms is not None:
        ground.device.refuse_other(note.get("device") or {})
    return Decided.parse(note.get("decided"), str(path))


def _identity(ground: Ground) -> dict[str, Any]:
    return {
        "data": ground.task.spec.digest,
        "network": model_signature(ground.model),
        "weights": sha256(ground.run.model),
    }


def _walk(
    folder: RunFolder, ground: Ground, decided: Decided, files: list[File] | None, scratch: Path, began: float
) -> CompressResult:
    for remark in decided.remarks:
        say(remark)
    learned: list[Learned] = []
    network, plan, merge, blocks = ground.model, None, decided.merge, tuple[str, ...]()
    if not decided.ready:
        learned = learn(ground, decided.ways, folder.checkpoints, _seconds_left(ground, began))
        way = learned[-1].way
        network, plan, merge, blocks = learned[-1].network, read_plan(way.plan, way.name), way.merge, way.blocks
    final, exact = finished(ground, network, merge, blocks)
    plan = exact if plan is None else plan.then(exact)
    if files is None:
        files = files_of(ground, final, exact, scratch / "final", learned[-1].rounded if learned else None)
    file = fitting(ground, files)
    trials = _trials(ground, decided, learned, files, file)
    if file is None:
        raise _failure(ground, learned, files, trials)
    handed = ship(folder, ground, Ready(final, plan if ground.done is None else ground.done.then(plan), files), file)
    seconds = time.monotonic() - began
    result = result_of(folder, ground, decided, learned, handed, plan, trials, seconds)
    write_text(folder.path / RESULT, result.to_json())
    write_compression(folder.report, result)
    shutil.rmtree(folder.checkpoints)
    return result


def _seconds_left(ground: Ground, began: float) -> float | None:
    """For the training: what is left of the minutes when the files have been made, measured and tested."""
    if ground.asked.minutes is None:
        return None
    images = len(ground.samples.calibration) + 4 * len(ground.samples.comparison) + 2 * len(ground.task.test)
    shipping = SHIPPING_SECONDS + 2 * SECONDS * min(1.0, ground.own_ms / 10) + 1e-3 * ground.own_ms * images
    return max(LEAST_SECONDS, 60 * ground.asked.minutes - (time.monotonic() - began) - shipping)


def _trials(
    ground: Ground, decided: Decided, learned: list[Learned], files: list[File], shipped: File | None
) -> tuple[Trial, ...]:
    """Everything that was tried, with the figures and the verdicts of the files as they are now: without training they
    were among the trials before, and a resumed compression has measured them anew."""
    stem = f"{learned[-1].way.name}, taught again" if learned else EXACT
    now: dict[str, Trial] = {}
    for file in files:
        name = f"{stem}, {file.kind}"
        now[name] = file.trial(name, "handed out" if file is shipped else refusal(ground, file) or KEEPS)
    return (*(now.pop(trial.name, trial) for trial in decided.trials), *now.values())


def _failure(ground: Ground, learned: list[Learned], files: list[File], trials: tuple[Trial, ...]) -> EdgewrightError:
    """Nothing can be handed out: for what was lost, or for what was measured."""
    wanted = [file for file in files if not learned or file.kind == learned[-1].way.type] or files
    lost = [file for file in wanted if file.refused]
    if lost:
        both = lost[0].figure < ground.floor - 1e-9
        what = "nothing keeps both the ceilings and the accuracy" if both else "nothing can be handed out"
        return NothingKeeps(f"{what}: {lost[0].kind} {lost[0].refused}", trials)
    reasons = "; ".join(f"{file.kind}: {refusal(ground, file)}" for file in wanted)
    return GateFailed(f"what was to be handed out does not keep its word when it is measured ({reasons})")
