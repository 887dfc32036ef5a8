"""The clock decides, too: how much training a network may cost, given how fast networks train here and now.

A network that meets the budget may be too large to be trained in the minutes there are, or so small that it has learned
all it can when half of them are left. Nobody knows beforehand which; so candidates are searched in *tiers*: all that
meet the budget, those that train twice as fast as the slowest of them, four times. In the last tier a full training
sees as many samples as it takes to make the most of a few minutes:

    enough = 4 sqrt(50,000 n)        n: training samples

4 epochs of 50,000 images, 28 of 1,000: of plain networks of 5 to 20 million multiply-adds, trained for one to three
minutes, those were best that saw about so much (`benchmarks/short_training.py`). A sample whose target is a map holds
more lessons than one, `LESSONS`. Where the slowest network sees enough, there is one tier. Where brief trainings cannot
tell networks apart, one network as people build them, of the last tier, has all of the time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgewright.core.architecture import Architecture
from edgewright.core.pool import Pool, cores
from edgewright.core.progress import say
from edgewright.core.seed import derive
from edgewright.job.design.ground import DesignGround
from edgewright.job.design.record import Work, allotted
from edgewright.search.finalists import save_splits
from edgewright.search.pacing import PacingJob, find_pace
from edgewright.search.resolve import make_strategy
from edgewright.train.pace import Pace

TIMED = 12  # networks whose training is timed
TIMES = 2.0  # as fast is the next tier
MOST = 3  # tiers
TELLING = 0.15  # of what is enough to learn a task is enough to tell networks apart
LESSONS = 8.0  # of a sample whose target is a map


@dataclass(frozen=True)
class Tier:
    """Networks that cost at most so much training: seconds of one core for a sample.   samples: that a full training of
    the slowest of them sees."""

    most: float
    samples: float


def pace(run: Work, workers: Pool) -> Pace | None:
    """The law of training here, noted; None where no clock limits the run."""
    if run.ground.plan.minutes is None:
        return None
    if (known := known_pace(run)) is not None:
        return known
    ground, data = run.ground, run.folder.checkpoints / "data.safetensors"
    if not data.exists():
        save_splits(ground.task, data)
    networks = _some(ground)
    jobs = [
        PacingJob(one.space, ground.task.spec, one.model_dump(mode="json"), data, ground.start(one)) for one in networks
    ]
    found = find_pace(jobs, networks, ground.space, workers)
    run.study.note("pace", found.model_dump(mode="json"))
    return found


def _some(ground: DesignGround) -> list[Architecture]:
    """A few networks inside the budget, of all spaces."""
    each = -(-TIMED // len(ground.members))
    found: list[Architecture] = []
    for member in ground.members:
        seed = derive(ground.plan.seed, "pace", member.name)
        inside = [one for one in member.classics() if ground.excess(one) <= 0]
        drawn = make_strategy("random", member, excess=ground.excess, seed=seed).ask(each)
        found += [*inside[:: max(1, len(inside) // 4)], *drawn]
    return found


def tiers(run: Work, law: Pace | None) -> list[Tier]:
    """The tiers of this run, the slowest first; one without end where no clock limits it."""
    if law is None:
        return [Tier(math.inf, math.inf)]
    noted = run.study.read_note("tiers")
    if noted is not None:
        return [Tier(*one) for one in noted]
    ground = run.ground
    seconds = max(1.0, run.watch.left() - sum(allotted(run).values()))
    slowest, fitting = _slowest(ground, law), law.together * seconds / enough(ground)
    most = [fitting * TIMES**above for above in range(MOST) if above == 0 or fitting * TIMES ** (above - 1) < slowest]
    found = [Tier(one, law.together * seconds / one) for one in reversed(most if fitting < slowest else [slowest])]
    run.study.note("tiers", [(tier.most, tier.samples) for tier in found])
    return found


def _slowest(ground: DesignGround, law: Pace) -> float:
    """Seconds a sample of the largest network inside the budget that people would build, of those that train slowest;
    where there is none such, of those that were timed. What trains more slowly without having more multiply-adds is
    worth no tier."""
    built = [one for member in ground.members for one in member.classics() if ground.excess(one) <= 0]
    starts = [one for one in _some(ground) if ground.start(one) is not None]
    return max(law.seconds(ground.space.graph(one)) for one in [*built, *starts] or _some(ground))


def known_pace(run: Work) -> Pace | None:
    """The law, where it was found out."""
    noted = run.study.read_note("pace")
    return None if noted is None else Pace.parse(noted, "what this run had measured")


def place(run: Work, law: Pace | None, found: Sequence[Tier], architecture: Architecture) -> int:
    """The number of the fastest tier that a network is in."""
    if law is None:
        return 0
    seconds = law.seconds(run.ground.space.graph(architecture))
    inside = [number for number, tier in enumerate(found) if seconds <= tier.most * 1.0001]
    return max(inside, default=0)


def enough(ground: DesignGround) -> float:
    """Samples that a training must see (see the top of this file)."""
    return 4 * math.sqrt(50_000 * len(ground.task.train)) / (LESSONS if ground.task.kind.aligned else 1.0)


def worth_training(run: Work, finalists: int) -> int:
    """How many finalists: so few that in the first of their trainings each sees what tells networks apart; where that
    is fewer than two, one."""
    law = known_pace(run)
    if law is None:
        return finalists
    found = tiers(run, law)
    middle = found[len(found) // 2]
    seconds = 0.9 * allotted(run)["finalists"] / 2 * cores()  # of two rungs
    return max(1, min(finalists, int(seconds / (TELLING * enough(run.ground) * middle.most))))


def within(ground: DesignGround, law: Pace | None, tier: Tier) -> Callable[[Architecture], float]:
    """Excess over the budget and the tier."""

    def excess(architecture: Architecture) -> float:
        over = ground.excess(architecture)
        if law is None or math.isinf(tier.most):
            return over
        return max(over, law.seconds(ground.space.graph(architecture)) / tier.most - 1)

    return excess


def told(found: Sequence[Tier], samples: int, alone: bool) -> None:
    """Say what the clock allows.   alone: one network only."""
    if alone:
        epochs = found[-1].samples / samples
        say(f"too little time to tell networks apart by training them: one has it all, for {epochs:.2g} epochs or more")
    elif len(found) > 1:
        words = ", ".join(f"{tier.samples / samples:.2g}" for tier in found)
        say(f"networks of {len(found)} speeds of training compete: a full training has time for {words} epochs of them")
