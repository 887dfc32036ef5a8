"""How long each stage of a run took, over every process that worked on it."""

import contextlib
import time
from collections.abc import Iterator

from edgewright.core.study import Study


class Stopwatch:
    """Adds the seconds of each stage to the study, so that a resumed run knows what is already spent.

    Args:
        limit: seconds the whole run may take, or None for no limit.
    """

    def __init__(self, study: Study, limit: float | None) -> None:
        self._study, self.limit = study, limit
        self.seconds: dict[str, float] = study.notes("seconds:")
        self._stage: str | None = None
        self._mark = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Seconds inside belong to `name`; of stages in stages, to the innermost."""
        self.save()
        outer = self._stage
        self._stage, self._mark = name, time.monotonic()
        try:
            yield
        finally:
            self.save()
            self._stage = outer

    def save(self) -> None:
        """Write down the current stage's seconds up to now; call it often, a killed run keeps what was saved."""
        if self._stage is None:
            return
        now = time.monotonic()
        self.add(self._stage, now - self._mark)
        self._mark = now

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._study.note(f"seconds:{name}", self.seconds[name])

    def spent(self, name: str | None = None) -> float:
        """Seconds of a stage, or of all of them."""
        self.save()
        return sum(self.seconds.values()) if name is None else self.seconds.get(name, 0.0)

    def left(self) -> float:
        """Seconds left of the limit; infinite without one."""
        return float("inf") if self.limit is None else self.limit - self.spent()
