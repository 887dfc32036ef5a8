r"""How far a training is, from 0 to 1, by steps or by time; and the learning rate that goes with it.

The learning rate is a function of progress only, so a training that is boxed in time ends its cosine at zero when its
time is up, whatever the machine did in between, and one that counts steps is the same training on every machine.
"""

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from edgewright.core.errors import BadInput


class Clock(Protocol):
    """What `fit` asks of a clock; `StepClock` and `TimeClock` are the two there are.

    repeats: whether two equal trainings by it have the same steps, and so may end in the same weights.
    """

    repeats: bool

    def start(self, spent: float = 0.0) -> None:
        """Begin, or go on after `spent` seconds of earlier work."""
        ...

    def spent(self) -> float:
        """Seconds of work so far, earlier processes included."""
        ...

    def progress(self, step: float, epoch: float, margin: float = 0.0) -> float:
        """0 at the start, 1 when there is no further step to do.

        Args:
            step: steps done (a half for the middle of one).
            epoch: epochs done, with the fraction of the one under way.
            margin: seconds that must be left when training stops (one more step, the last evaluation).
        """
        ...

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree on for the schedule to go on as it began."""
        ...


class StepClock:
    """A fixed number of optimizer steps: deterministic, so two equal trainings give equal weights.

    Args: total_steps: >= 1; `steps_per_epoch(...) * epochs` for a training in epochs.
    """

    repeats = True

    def __init__(self, total_steps: int, *, now: Callable[[], float] = time.monotonic) -> None:
        if total_steps < 1:
            raise BadInput(f"a training needs at least one step, got {total_steps}")
        self.total_steps = total_steps
        self._now = now
        self._origin = now()

    def start(self, spent: float = 0.0) -> None:
        self._origin = self._now() - spent

    def spent(self) -> float:
        return self._now() - self._origin

    def progress(self, step: float, epoch: float, margin: float = 0.0) -> float:
        """step / total_steps; epoch and margin do not matter here."""
        return min(1.0, step / self.total_steps)

    def identity(self) -> dict[str, Any]:
        return {"total_steps": self.total_steps}


class TimeClock:
    """A fixed number of seconds, with a ceiling on epochs for tasks so small that time would only overfit them.

    progress = max(spent / (seconds - margin), epoch / max_epochs), never above 1. At least half of the seconds are
    for training, however large the margin: only a box that small can be overrun.

    Args:
        seconds: > 0; all of the training, its evaluations and checkpoints included.
        max_epochs: ceiling on epochs, None for none.
        spent: seconds that are already gone when the clock is made.
        from_now: `seconds` are those to come; what an earlier process has spent on the training comes on top.
        now: seconds from any origin, never going back (injectable for tests).
    """

    repeats = False

    def __init__(
        self,
        seconds: float,
        max_epochs: float | None = None,
        spent: float = 0.0,
        *,
        from_now: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (seconds > 0 and math.isfinite(seconds)):
            raise BadInput(f"a training needs more than zero seconds, got {seconds}")
        if max_epochs is not None and not max_epochs > 0:
            raise BadInput(f"a training needs more than zero epochs, got {max_epochs}")
        self.seconds = seconds
        self._to_come = seconds if from_now else None
        self.max_epochs = max_epochs
        self._now = now
        self._before = spent
        self._origin = now() - spent

    def start(self, spent: float = 0.0) -> None:
        spent = max(spent, self._before)
        self._origin = self._now() - spent
        if self._to_come is not None:
            self.seconds = spent + self._to_come

    def spent(self) -> float:
        return self._now() - self._origin

    def progress(self, step: float, epoch: float, margin: float = 0.0) -> float:
        by_time = self.spent() / max(self.seconds - margin, self.seconds / 2)
        by_epoch = epoch / self.max_epochs if self.max_epochs is not None else 0.0
        return min(1.0, max(by_time, by_epoch))

    def identity(self) -> dict[str, Any]:
        # The seconds may change: a resumed run may have more or less time to give.
        return {"time": True}


def learning_rate(progress: float, *, peak: float, warmup: float) -> float:
    r"""Linear warm-up, then half a cosine down to zero.

    lr(p) = peak * p / w                                   for p < w
    lr(p) = peak * (1 + cos(pi (p - w) / (1 - w))) / 2     else

    Args: progress: p in [0, 1].   peak: highest learning rate.   warmup: w, share of the training in [0, 1).
    Source: Loshchilov & Hutter, "SGDR", ICLR 2017, arXiv:1608.03983, eq. (5) without restarts; warm-up as in Goyal et
    al., "Accurate, Large Minibatch SGD", arXiv:1706.02677, section 2.2.
    """
    if progress < warmup:
        return peak * progress / warmup
    return peak * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def steps_per_epoch(num_train: int, step_samples: int) -> int:
    """Whole steps in one pass over the data; a rest smaller than a step waits for the next shuffle."""
    return max(1, num_train // step_samples)
