"""The stages of the main job. Each asks the study what is known, does the rest, and writes down what it found."""

import shutil
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from edgewright.core.architecture import Architecture
from edgewright.core.cost import show
from edgewright.core.errors import EdgewrightError, GateFailed
from edgewright.core.files import write_text, written_whole
from edgewright.core.plan import Plan
from edgewright.core.pool import Pool, cores
from edgewright.core.progress import say
from edgewright.core.ranking import spearman
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.core.stopwatch import Stopwatch
from edgewright.core.study import Candidate, Study
from edgewright.device.measure import Runs
from edgewright.export.deploy import NUM_SAMPLES, RUNS, Deployed, deploy
from edgewright.ir.graph import count_macs
from edgewright.ir.to_onnx import to_onnx
from edgewright.job.design.ground import Ground
from edgewright.search.explore import Scorer, explore
from edgewright.search.finalists import TrainingJob, briefly_trained, halve, save_splits
from edgewright.search.halving import Rung, rungs_of_epochs, rungs_of_seconds
from edgewright.search.resolve import make_strategy
from edgewright.search.scoring import ScoringJob, save_batches
from edgewright.train.clock import Clock, StepClock, TimeClock, steps_per_epoch
from edgewright.train.evaluate import Evaluation, evaluate
from edgewright.train.loop import Diverged, EpochRecord, fit, training_device
from edgewright.train.recipe import recipe_for
from edgewright.train.threads import threads_for

MOST_CANDIDATES = 4000
MOST_FAMILIES = 64
LEAST_RUNS = 30
TRAINING_FLOPS = 4e10  # of one core, in small convolutional networks
# Proxies that are only counted cost nothing and always belong beside the one that steers.
BASELINES = ("params", "macs")


@dataclass(frozen=True)
class Desk:
    """What every stage works with."""

    folder: RunFolder
    ground: Ground
    study: Study
    watch: Stopwatch

    def architecture(self, key: str) -> Architecture:
        return self.ground.space.read(self.candidates()[key].architecture)

    def candidates(self) -> dict[str, Candidate]:
        return {candidate.key: candidate for candidate in self.study.candidates()}


def allot(left: float) -> dict[str, float]:
    """Seconds for the stages of a time-boxed run; what they do not take is for the full training."""
    reserve = min(20 + 0.04 * left, 90.0)
    working = max(0.0, left - reserve)
    return {"search": 0.15 * working, "finalists": 0.25 * working, "deploy": reserve}


def search(desk: Desk, workers: Pool, seconds: float) -> None:
    """Score candidates until the plan's count or the stage's seconds are up."""
    plan, ground, watch = desk.ground.plan, desk.ground, desk.watch
    if desk.study.read_note("search_done"):
        return
    batches = desk.folder.checkpoints / "batches.safetensors"
    if not batches.exists():
        save_batches(batches, ground.task.train, seed=plan.seed)
    proxies = tuple(dict.fromkeys((plan.proxy, *BASELINES)))

    def job(architecture: Architecture) -> ScoringJob:
        return ScoringJob(
            space=plan.space,
            spec=ground.task.spec,
            architecture=architecture.model_dump(mode="json"),
            batches=batches,
            proxies=proxies,
            seed=plan.seed,
        )

    strategy = make_strategy(plan.strategy, ground.space, excess=ground.excess, seed=derive(plan.seed, "search"))
    count = plan.candidates or MOST_CANDIDATES
    timed = plan.minutes is not None
    explore(
        desk.study,
        strategy,
        Scorer(ground.costs, job, plan.proxy),
        workers,
        count=count,
        enough=lambda seen: timed and watch.spent("search") >= seconds and seen >= min(count, 2 * plan.finalists),
    )
    desk.study.note("search_done", True)


def choose(desk: Desk, seconds: float) -> list[str]:
    """The finalists: the best candidates by proxy whose whole network, measured, keeps the latency ceiling.

    After `seconds` of a time-boxed run there may be fewer of them: large networks take seconds each to measure.

    Notes predicted against measured latency for all that were measured.
    """
    noted = desk.study.read_note("finalists")
    if noted is not None:
        return [row["key"] for row in noted]
    plan, ground = desk.ground.plan, desk.ground
    ceiling = plan.budget.ceilings().get("latency", float("inf"))
    finalists: list[dict[str, Any]] = []
    measured: list[dict[str, Any]] = []
    for candidate in _best_and_different(ground, desk.study.candidates()):
        predicted = candidate.costs["latency"].value
        if predicted * _bias(measured) > ceiling:
            continue
        graph = ground.space.graph(ground.space.read(candidate.architecture))
        (latency,) = ground.device.measure([to_onnx(graph)], Runs(most=_runs(plan, predicted, seconds)))
        row = {
            "key": candidate.key,
            "predicted_ms": predicted,
            "measured_ms": latency.median_ms,
            "score": candidate.scores[plan.proxy],
        }
        measured.append(row)
        if latency.median_ms <= 0.98 * ceiling:
            finalists.append(row)
        if len(finalists) == plan.finalists or len(measured) == 6 * plan.finalists:
            break
        if plan.minutes is not None and desk.watch.spent("measure") > (seconds if finalists else 2 * seconds):
            break
    if not finalists:
        raise GateFailed(
            f"none of the {len(measured)} best candidates keeps the latency ceiling of {show('latency', ceiling)} when "
            "measured as a whole (the table predicted that they would); is the machine busy? otherwise raise the "
            "ceiling a little"
        )
    desk.study.note("measured", measured)
    desk.study.note("finalists", finalists)
    return [row["key"] for row in finalists]


def _runs(plan: Plan, latency_ms: float, seconds: float) -> int:
    """Runs of a candidate's measurement: in a time-boxed run, fewer of a slow network, so that every finalist has one.

    What is claimed of the exported file is measured in full; this only chooses.
    """
    if plan.minutes is None:
        return 200
    return int(min(200, max(LEAST_RUNS, 1e3 * seconds / plan.finalists / latency_ms)))


def _bias(measured: Sequence[dict[str, Any]]) -> float:
    """Measured over predicted latency so far. A search finds the networks that the table flatters; 1 until it shows."""
    if len(measured) < 4:
        return 1.0
    return max(1.0, statistics.median(row["measured_ms"] / row["predicted_ms"] for row in measured))


def _best_and_different(ground: Ground, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best by proxy first, but those that share most blocks with a better one after all others.

    Evolution ends among near relatives; training eight of one family would be choosing among one.
    """
    chosen: list[Candidate] = []
    relatives: list[Candidate] = []
    families: list[Counter[str]] = []
    for candidate in sorted(candidates, key=lambda c: -c.scores[ground.plan.proxy]):
        blocks = ground.space.blocks(ground.space.read(candidate.architecture))
        family = Counter(graph.signature for _, graph in blocks[1:-1])
        alike = len(families) == MOST_FAMILIES or any(
            2 * (family & other).total() > max(family.total(), other.total()) for other in families
        )
        (relatives if alike else chosen).append(candidate)
        if not alike:
            families.append(family)
    return [*chosen, *relatives]


def train_finalists(desk: Desk, workers: Pool, keys: Sequence[str], seconds: float) -> list[str]:
    """Successive halving; the ranking, best first."""
    ground = desk.ground
    noted = desk.study.read_note("ranking")
    if noted is not None:
        return noted
    data = desk.folder.checkpoints / "data.safetensors"
    if not data.exists():
        save_splits(ground.task, data)
    candidates = desk.candidates()

    def job(key: str, index: int, rung: Rung) -> TrainingJob:
        return _brief(desk, candidates[key], index, rung)

    ranking = halve(desk.study, workers, keys, _rungs(desk, len(keys), workers.workers, seconds), job, desk.watch.save)
    desk.study.note("ranking", ranking)
    return ranking


def _brief(desk: Desk, candidate: Candidate, index: int, rung: Rung) -> TrainingJob:
    """A finalist's training of one rung."""
    plan, ground = desk.ground.plan, desk.ground
    expected = rung.epochs or _epochs_in(rung.seconds or 0, candidate, ground, 1)
    return TrainingJob(
        space=plan.space,
        spec=ground.task.spec,
        architecture=candidate.architecture,
        recipe=recipe_for(ground.task.spec, expected),
        data=desk.folder.checkpoints / "data.safetensors",
        checkpoint=desk.folder.checkpoints / f"rung-{index}-{candidate.key}.safetensors",
        seed=plan.seed,
        epochs=rung.epochs,
        seconds=rung.seconds,
    )


def _rungs(desk: Desk, num_finalists: int, num_workers: int, seconds: float) -> list[Rung]:
    """The rungs of this run, noted: a resumed training must follow its recipe even if there are fewer cores now."""
    noted = desk.study.read_note("rungs")
    if noted is not None:
        return [Rung(**rung) for rung in noted]
    if desk.ground.plan.minutes is None:
        rungs = rungs_of_epochs(num_finalists, desk.ground.plan.epochs or 1)
    else:
        rungs = rungs_of_seconds(num_finalists, 0.9 * seconds, num_workers)  # the rest is for starting processes
    desk.study.note("rungs", [asdict(rung) for rung in rungs])
    return rungs


def train_and_deploy(desk: Desk, ranking: Sequence[str], reserve: float) -> tuple[str, nn.Module, Deployed, Evaluation]:
    """Train the best finalist in full and deploy it; if that diverges or the file breaks the budget, the next one."""
    refused = desk.study.notes("refused:")
    for key in ranking:
        if key in refused:
            continue
        try:
            with desk.watch.stage("train"):
                model, validation = _train(desk, key, _reserve(desk, key, reserve))
            with desk.watch.stage("deploy"):
                deployed = _deploy(desk, key, model)
            if not deployed.broken:
                return key, model, deployed, validation
            broken = deployed.broken
        except Diverged as error:
            broken = [str(error)]
        say(f"refused: {'; '.join(broken)}")
        desk.study.note(f"refused:{key}", broken)
        refused[key] = broken
    if all("the training diverged" in broken[0] for broken in refused.values()):
        raise EdgewrightError(f"of every finalist {refused[ranking[0]][0]}; no model was written")
    reasons = "; ".join(f"{key}: {', '.join(broken)}" for key, broken in refused.items())
    raise GateFailed(f"no finalist could be trained to keep the budget as a file ({reasons}); no model was written")


def _reserve(desk: Desk, key: str, reserve: float) -> float:
    """Seconds to keep for the deployment: a slow network is slow to measure, to compare with its file and to test."""
    rows = desk.study.read_note("measured", [])
    latency_ms = next((row["measured_ms"] for row in rows if row["key"] == key), 0.0)
    task = desk.ground.task
    inferences = 1.3 * RUNS + 2 * min(NUM_SAMPLES, len(task.test)) + len(task.test) + len(task.val)
    return max(reserve, 8 + latency_ms / 1e3 * inferences)


def _train(desk: Desk, key: str, reserve: float) -> tuple[nn.Module, Evaluation]:
    plan, ground = desk.ground.plan, desk.ground
    architecture = desk.architecture(key)
    model = fresh_model(ground, architecture)
    seconds = None if plan.minutes is None else max(5.0, desk.watch.left() - reserve)
    begun = desk.folder.checkpoints / f"final-{key}.safetensors"
    if seconds is not None and not begun.exists() and (brief := _better_than(desk, key, seconds)):
        return brief
    expected = desk.study.read_note(f"epochs:{key}")
    if expected is None:  # noted, because a resumed training must follow the recipe that it began with
        expected = plan.epochs or _epochs_in(seconds or 0, desk.candidates()[key], ground, cores())
        desk.study.note(f"epochs:{key}", expected)
    recipe = recipe_for(ground.task.spec, expected)

    def on_epoch(record: EpochRecord) -> None:
        desk.study.record_epoch(key, "final", record.epoch, record.model_dump(mode="json"))
        desk.watch.save()

    with threads_for(recipe.batch_size * count_macs(ground.space.graph(architecture))):
        fit(
            model,
            ground.task,
            recipe,
            size=ground.size(architecture),
            seed=derive(plan.seed, "train", key),
            clock=_clock(desk, len(ground.task.train), recipe.batch_size, seconds),
            checkpoint=begun,
            on_epoch=on_epoch,
            device=training_device(),
        )
        return model, evaluate(model, ground.task.val, ground.task.spec, ground.size(architecture))


def _better_than(desk: Desk, key: str, seconds: float) -> tuple[nn.Module, Evaluation] | None:
    """The finalist as its longest brief training left it, if that was longer than the `seconds` there still are.

    So it is when finalists before it were refused only after their training.
    """
    ground, candidate = desk.ground, desk.candidates()[key]
    for index, rung in reversed(list(enumerate(_rungs(desk, 0, 1, 0)))):
        job = _brief(desk, candidate, index, rung)
        if (rung.seconds or 0) > seconds and job.checkpoint.exists():
            say("no time is left for a full training of this finalist: its brief training stands")
            model, _ = briefly_trained(job)
            return model, evaluate(model, ground.task.val, ground.task.spec, ground.size(desk.architecture(key)))
    return None


def _epochs_in(seconds: float, candidate: Candidate, ground: Ground, num_cores: int) -> float:
    """A guess, from the MACs alone, at how many epochs fit: good enough to choose how much to regularise."""
    per_image = 6 * candidate.costs["macs"].value / (TRAINING_FLOPS * num_cores) + 1e-5
    return seconds / (per_image * len(ground.task.train))


def _clock(desk: Desk, num_train: int, batch_size: int, seconds: float | None) -> Clock:
    plan = desk.ground.plan
    if seconds is not None:
        return TimeClock(seconds, max_epochs=plan.epochs, from_now=True)
    return StepClock((plan.epochs or 1) * steps_per_epoch(num_train, batch_size))


def fresh_model(ground: Ground, architecture: Architecture) -> nn.Module:
    """The network with the weights that the seed gives it, whoever builds it."""
    with torch.random.fork_rng():
        torch.manual_seed(derive(ground.plan.seed, "weights", architecture.key()))
        return ground.space.build(architecture)


def _deploy(desk: Desk, key: str, model: nn.Module) -> Deployed:
    ground, spec = desk.ground, desk.ground.task.spec
    architecture = desk.architecture(key)
    metadata = {"architecture": architecture.model_dump_json(), "task": spec.model_dump_json()}
    path = desk.folder.checkpoints / f"{key}.onnx"
    return deploy(
        model, ground.space.graph(architecture), ground.task, ground.device, ground.plan.budget, path, metadata
    )


def ship(desk: Desk, key: str, model: nn.Module, deployed: Deployed) -> None:
    """Put the files of the chosen network into the run folder, each of them whole."""
    from safetensors.torch import save_file

    write_text(desk.folder.architecture, desk.architecture(key).to_json())
    with written_whole(desk.folder.model) as part:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, part)
    with written_whole(desk.folder.onnx) as part:
        shutil.copyfile(deployed.path, part)


def tidy(folder: RunFolder) -> None:
    """A finished run keeps the chosen network's last checkpoint; other trainings and copies of the data go."""
    kept = f"final-{folder.read_result().key}.safetensors"
    for path in folder.checkpoints.iterdir():
        if path.name != kept:
            path.unlink()


def rank_correlation(rows: Sequence[dict[str, Any]]) -> float | None:
    """Spearman's between predicted and measured latency; None where fewer than three networks were measured."""
    if len(rows) < 3:
        return None
    return spearman([row["predicted_ms"] for row in rows], [row["measured_ms"] for row in rows])
