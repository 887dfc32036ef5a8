"""What a design hands over: the files, and result.json, gathered from the study and the deployed file."""

import math
import shutil
from collections.abc import Sequence
from typing import Any

from edgewright.core.architecture import Architecture
from edgewright.core.environment import versions
from edgewright.core.files import sha256, write_text, written_whole
from edgewright.core.ranking import spearman
from edgewright.core.result import (
    BesideRandom,
    BlockShare,
    Contestant,
    Finalist,
    LatencyCheck,
    Metrics,
    Noise,
    Result,
    Search,
)
from edgewright.core.weights import write_weights
from edgewright.ir.graph import count_macs, count_params
from edgewright.job.design.record import Work, architecture_of
from edgewright.job.design.train import Chosen
from edgewright.start.resolve import open_space, stands_alone
from edgewright.task.pictures import Pictures
from edgewright.train.evaluate import Evaluation, evaluate


def ship(run: Work, chosen: Chosen) -> Result:
    """Put the files of the chosen network into the run folder, each of them whole; all that was found out."""
    architecture = architecture_of(run, chosen.key)
    write_text(run.folder.architecture, architecture.to_json())
    if (start := run.ground.start(architecture)) is not None:
        stands_alone(start, run.folder)
    write_weights(run.folder.model, chosen.model)
    with written_whole(run.folder.onnx) as part:
        shutil.copyfile(chosen.deployed.path, part)
    return _result(run, chosen)


def rank_correlation(rows: Sequence[dict[str, Any]]) -> float | None:
    """Spearman's between predicted and measured latency; None where fewer than three networks were measured."""
    if len(rows) < 3:
        return None
    return spearman([row["predicted_ms"] for row in rows], [row["measured_ms"] for row in rows])


def _result(run: Work, chosen: Chosen) -> Result:
    """Read the held-out test part, once, and write down everything; the figures of the report go into the study."""
    ground, study, key, deployed = run.ground, run.study, chosen.key, chosen.deployed
    architecture = architecture_of(run, key)
    task = ground.task
    test = evaluate(chosen.model, task.test, task.spec, ground.size(architecture))
    shown = task.kind.pictures(task.test.inputs, task.test.targets, test.answers, task.spec.input.white)
    study.note("pictures", Pictures(pictures=tuple(shown)).model_dump(mode="json"))
    study.note("latency_samples", deployed.latency.samples)
    latency = deployed.latency
    return Result(
        task=ground.task.spec.model_dump(mode="json"),
        device=ground.device.identity(),
        budget=ground.plan.budget,
        architecture=architecture.model_dump(mode="json"),
        key=key,
        costs=deployed.costs,
        runtime_peak_bytes=deployed.runtime_peak,
        metrics=metrics_of(test, chosen.validation),
        export=deployed.parity,
        search=_searched(run),
        finalists=_finalists(run),
        start=_start(run, architecture),
        contest=_contest(run) if ground.starts else [],
        random=_beside_random(run),
        latency_check=_latency_check(run),
        latency_noise=Noise(
            runs=latency.runs,
            reference_ms=latency.reference_ms,
            reference_drift=latency.reference_drift,
            noisy=latency.noisy,
        ),
        blocks=_blocks(run, key),
        seconds={name: round(seconds, 3) for name, seconds in run.watch.seconds.items()},
        seed=ground.plan.seed,
        versions=versions(),
        files={path.name: sha256(path) for path in (run.folder.onnx, run.folder.model, run.folder.architecture)},
    )


def metrics_of(test: Evaluation, validation: Evaluation) -> Metrics:
    """What both evaluations say, as it is written down."""
    return Metrics(decides=test.score.name, test=test.values, val=validation.values, each=test.each)


def _searched(run: Work) -> Search:
    evaluated, seconds = len(run.study.candidates()), run.watch.seconds["search"]
    plan = run.ground.plan
    return Search(
        evaluated=evaluated,
        proxy=plan.proxy,
        strategy=plan.strategy,
        seconds=seconds,
        networks_per_second=evaluated / max(seconds, 1e-9),
    )


def _finalists(run: Work) -> list[Finalist]:
    rows = run.study.read_note("finalists")
    figures = {index: run.study.notes(f"rung-{index}:") for index in range(len(run.study.read_note("rungs", [])))}
    finalists = []
    for row in rows:
        rungs = [index for index, found in figures.items() if row["key"] in found]
        last = rungs[-1] if rungs else None
        figure = None if last is None else figures[last][row["key"]]["val"]
        if figure is not None and math.isnan(figure):  # its training diverged
            figure = None
        finalists.append(Finalist(**row, val=figure, rung=last))
    return finalists


def _start(run: Work, architecture: Architecture) -> dict[str, Any] | None:
    """What the network was made of, and what of it is kept."""
    start = run.ground.start(architecture)
    if start is None:
        return None
    space = open_space(architecture.space, run.ground.task.spec, start)
    return {**start.model_dump(mode="json", exclude={"weights"}), "kept": space.kept(architecture)}


def _contest(run: Work) -> list[Contestant]:
    found = []
    for finalist in _finalists(run):
        start = run.ground.start(architecture_of(run, finalist.key))
        found.append(Contestant(key=finalist.key, start=start and start.source, val=finalist.val))
    return found


def _beside_random(run: Work) -> BesideRandom | None:
    noted = run.study.read_note("random")
    return None if noted is None else BesideRandom.parse(noted, str(run.folder.study))


def _latency_check(run: Work) -> LatencyCheck | None:
    """The candidates that were measured, and the networks of the calibration, each predicted without itself."""
    check = run.ground.latency.check
    calibration = zip(check.predicted_ms, check.measured_ms, strict=True)
    rows = [
        *run.study.read_note("measured"),
        *({"predicted_ms": predicted, "measured_ms": measured} for predicted, measured in calibration),
    ]
    errors = sorted(abs(row["predicted_ms"] / row["measured_ms"] - 1) for row in rows)
    return LatencyCheck(
        networks=len(rows), rank_correlation=rank_correlation(rows), median_error=errors[len(errors) // 2]
    )


def _blocks(run: Work, key: str) -> list[BlockShare]:
    ground = run.ground
    blocks = ground.space.blocks(architecture_of(run, key))
    shares = ground.latency.shares(blocks)
    return [
        BlockShare(
            name=name,
            latency_ms=share,
            macs=count_macs(graph),
            params=count_params(graph),
            output_shape=graph.output_shapes[0],
            more_outputs=graph.output_shapes[1:],
        )
        for (name, graph), share in zip(blocks, shares, strict=True)
    ]
