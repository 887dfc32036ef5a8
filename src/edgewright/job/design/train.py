"""The full training of the best finalist, and its file; where that diverges or breaks the budget, the next one's."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from edgewright.core.architecture import Architecture
from edgewright.core.errors import EdgewrightError, GateFailed
from edgewright.core.pool import cores
from edgewright.core.progress import say
from edgewright.core.seed import derive
from edgewright.export.deploy import NUM_SAMPLES, RUNS, Deployed, deploy
from edgewright.ir.graph import count_macs
from edgewright.job.design.ground import DesignGround
from edgewright.job.design.record import Work, allotted, architecture_of, candidates
from edgewright.job.design.training import brief_training, epochs_in, recipe, rungs_of
from edgewright.search.finalists import briefly_trained
from edgewright.train.clock import Clock, StepClock, TimeClock, steps_per_epoch
from edgewright.train.evaluate import Evaluation, evaluate
from edgewright.train.head import awaken
from edgewright.train.loop import Diverged, Running, fit, training_device
from edgewright.train.record import Record
from edgewright.train.threads import threads_for


@dataclass(frozen=True)
class Chosen:
    """The network that is handed out, with its file and what it is worth on val."""

    key: str
    model: nn.Module
    deployed: Deployed
    validation: Evaluation


def train_and_deploy(run: Work, ranking: Sequence[str]) -> Chosen:
    """Train the best finalist in full and deploy it; if that diverges or the file breaks the budget, the next one."""
    refused, reserve = run.study.notes("refused:"), allotted(run)["deploy"]
    for key in ranking:
        if key in refused:
            continue
        try:
            model, validation = _train(run, key, _reserve(run, key, reserve))
            with run.watch.stage("deploy"):
                deployed = _deploy(run, key, model)
            if not deployed.broken:
                return Chosen(key, model, deployed, validation)
            broken = deployed.broken
        except Diverged as error:
            broken = [str(error)]
        say(f"refused: {'; '.join(broken)}")
        run.study.note(f"refused:{key}", broken)
        refused[key] = broken
    if all("the training diverged" in broken[0] for broken in refused.values()):
        raise EdgewrightError(f"of every finalist {refused[ranking[0]][0]}; no model was written")
    reasons = "; ".join(f"{key}: {', '.join(broken)}" for key, broken in refused.items())
    raise GateFailed(f"no finalist could be trained to keep the budget as a file ({reasons}); no model was written")


def _reserve(run: Work, key: str, reserve: float) -> float:
    """Seconds to keep for the deployment: a slow network is slow to measure, to compare with its file and to test."""
    rows = run.study.read_note("measured", [])
    latency_ms = next((row["measured_ms"] for row in rows if row["key"] == key), 0.0)
    task = run.ground.task
    inferences = 1.3 * RUNS + 2 * min(NUM_SAMPLES, len(task.test)) + len(task.test) + len(task.val)
    return max(reserve, 8 + latency_ms / 1e3 * inferences)


def _train(run: Work, key: str, reserve: float) -> tuple[nn.Module, Evaluation]:
    plan, ground = run.ground.plan, run.ground
    architecture = architecture_of(run, key)
    model = fresh_model(ground, architecture)
    seconds = None if plan.minutes is None else max(5.0, run.watch.left() - reserve)
    begun = run.folder.checkpoints / f"final-{key}.safetensors"
    if seconds is not None and not begun.exists() and (brief := _better_than(run, key, seconds)):
        return brief
    expected = run.study.read_note(f"epochs:{key}")
    if expected is None:  # noted, because a resumed training must follow the recipe that it began with
        expected = plan.epochs or epochs_in(run, seconds or 0, candidates(run)[key], cores())
        run.study.note(f"epochs:{key}", expected)
    start = ground.start(architecture)
    followed = recipe(ground.task.spec, expected, start)
    if start is not None and not begun.exists():
        began = time.monotonic()
        awaken(model, ground.task, ground.size(architecture), derive(plan.seed, "head", key))
        seconds = None if seconds is None else max(1.0, seconds - (time.monotonic() - began))

    def tell(record: Record) -> None:
        run.study.record_epoch(key, "final", math.ceil(record.epoch), record.model_dump(mode="json"))
        run.watch.save()

    with threads_for(followed.batch_size * count_macs(ground.space.graph(architecture))):
        fit(
            model,
            ground.task,
            followed,
            size=ground.size(architecture),
            seed=derive(plan.seed, "train", key),
            clock=_clock(run, len(ground.task.train), followed.step_samples, seconds),
            running=Running(checkpoint=begun, tell=tell, device=training_device()),
        )
        found = model, evaluate(model, ground.task.val, ground.task.spec, ground.size(architecture))
    return found if seconds is None else _or_brief(run, key, found)


def _or_brief(run: Work, key: str, found: tuple[nn.Module, Evaluation]) -> tuple[nn.Module, Evaluation]:
    """What the full training gave, or, where a machine that was busy left it a few steps and it is worse on val than
    the finalist's longest brief training, that."""
    ground, candidate = run.ground, candidates(run)[key]
    for index, rung in reversed(list(enumerate(rungs_of(run, 0, 1, 0)))):
        noted = run.study.notes(f"rung-{index}:").get(key)
        if noted is None:
            continue
        job = brief_training(run, candidate, index, rung)
        if not noted["rank"] > found[1].score.rank or not job.checkpoint.exists():
            return found
        say("the full training came out worse on val than this finalist's brief one, which stands")
        model, _ = briefly_trained(job)
        return model, evaluate(model, ground.task.val, ground.task.spec, ground.size(architecture_of(run, key)))
    return found


def _better_than(run: Work, key: str, seconds: float) -> tuple[nn.Module, Evaluation] | None:
    """The finalist as its longest brief training left it, if that was longer than the `seconds` there still are.

    So it is when finalists before it were refused only after their training.
    """
    ground, candidate = run.ground, candidates(run)[key]
    for index, rung in reversed(list(enumerate(rungs_of(run, 0, 1, 0)))):
        job = brief_training(run, candidate, index, rung)
        if (rung.seconds or 0) > seconds and job.checkpoint.exists():
            say("no time is left for a full training of this finalist: its brief training stands")
            model, _ = briefly_trained(job)
            return model, evaluate(model, ground.task.val, ground.task.spec, ground.size(architecture_of(run, key)))
    return None


def _clock(run: Work, num_train: int, step_samples: int, seconds: float | None) -> Clock:
    plan = run.ground.plan
    if seconds is not None:
        return TimeClock(seconds, max_epochs=plan.epochs, from_now=True)
    return StepClock((plan.epochs or 1) * steps_per_epoch(num_train, step_samples))


def fresh_model(ground: DesignGround, architecture: Architecture) -> nn.Module:
    """The network with the weights that the seed gives it, whoever builds it."""
    with torch.random.fork_rng():
        torch.manual_seed(derive(ground.plan.seed, "weights", architecture.key()))
        return ground.space.build(architecture)


def _deploy(run: Work, key: str, model: nn.Module) -> Deployed:
    ground, spec = run.ground, run.ground.task.spec
    architecture = architecture_of(run, key)
    metadata = {"architecture": architecture.model_dump_json(), "task": spec.model_dump_json()}
    path = run.folder.checkpoints / f"{key}.onnx"
    return deploy(
        model, ground.space.graph(architecture), ground.task, ground.device, ground.plan.budget, path, metadata
    )
