"""result.json: what came out, gathered from the study and the deployed file."""

import math

from torch import nn

from edgewright.core.environment import versions
from edgewright.core.files import sha256
from edgewright.core.result import BlockShare, Finalist, LatencyCheck, Metrics, Noise, Result, Search
from edgewright.export.deploy import Deployed
from edgewright.ir.graph import count_macs, count_params
from edgewright.job.design.stages import Desk, rank_correlation
from edgewright.search.halving import sizes
from edgewright.task.pictures import Pictures
from edgewright.train.evaluate import Evaluation, evaluate


def summarise(desk: Desk, key: str, model: nn.Module, deployed: Deployed, validation: Evaluation) -> Result:
    """Read the held-out test part, once, and write down everything; the figures of the report go into the study."""
    ground, study = desk.ground, desk.study
    architecture = desk.architecture(key)
    task = ground.task
    test = evaluate(model, task.test, task.spec, ground.size(architecture))
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
        metrics=metrics_of(test, validation),
        export=deployed.parity,
        search=_search(desk),
        finalists=_finalists(desk),
        latency_check=_latency_check(desk),
        latency_noise=Noise(
            runs=latency.runs,
            reference_ms=latency.reference_ms,
            reference_drift=latency.reference_drift,
            noisy=latency.noisy,
        ),
        blocks=_blocks(desk, key),
        seconds={name: round(seconds, 3) for name, seconds in desk.watch.seconds.items()},
        seed=ground.plan.seed,
        versions=versions(),
        files={path.name: sha256(path) for path in (desk.folder.onnx, desk.folder.model, desk.folder.architecture)},
    )


def metrics_of(test: Evaluation, validation: Evaluation) -> Metrics:
    """What both evaluations say, as it is written down."""
    return Metrics(decides=test.score.name, test=test.values, val=validation.values, each=test.each)


def _search(desk: Desk) -> Search:
    evaluated, seconds = len(desk.study.candidates()), desk.watch.seconds["search"]
    plan = desk.ground.plan
    return Search(
        evaluated=evaluated,
        proxy=plan.proxy,
        strategy=plan.strategy,
        seconds=seconds,
        networks_per_second=evaluated / max(seconds, 1e-9),
    )


def _finalists(desk: Desk) -> list[Finalist]:
    rows = desk.study.read_note("finalists")
    figures = {index: desk.study.notes(f"rung-{index}:") for index in range(len(sizes(len(rows))))}
    finalists = []
    for row in rows:
        rungs = [index for index, found in figures.items() if row["key"] in found]
        last = rungs[-1] if rungs else None
        figure = None if last is None else figures[last][row["key"]]["val"]
        if figure is not None and math.isnan(figure):  # its training diverged
            figure = None
        finalists.append(Finalist(**row, val=figure, rung=last))
    return finalists


def _latency_check(desk: Desk) -> LatencyCheck | None:
    """The candidates that were measured, and the networks of the calibration, each predicted without itself."""
    check = desk.ground.latency.check
    calibration = zip(check.predicted_ms, check.measured_ms, strict=True)
    rows = [
        *desk.study.read_note("measured"),
        *({"predicted_ms": predicted, "measured_ms": measured} for predicted, measured in calibration),
    ]
    errors = sorted(abs(row["predicted_ms"] / row["measured_ms"] - 1) for row in rows)
    return LatencyCheck(
        networks=len(rows), rank_correlation=rank_correlation(rows), median_error=errors[len(errors) // 2]
    )


def _blocks(desk: Desk, key: str) -> list[BlockShare]:
    ground = desk.ground
    blocks = ground.space.blocks(desk.architecture(key))
    shares = ground.latency.shares(blocks)
    return [
        BlockShare(
            name=name,
            latency_ms=share,
            macs=count_macs(graph),
            params=count_params(graph),
            output_shape=graph.output_shape,
        )
        for (name, graph), share in zip(blocks, shares, strict=True)
    ]
