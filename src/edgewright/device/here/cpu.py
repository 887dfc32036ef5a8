"""This machine's processor through ONNX Runtime."""

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from edgewright.core.errors import BadInput
from edgewright.device import agent
from edgewright.device.agent import Call, caller, in_turns, pinned, profiled
from edgewright.device.base import Can, Device
from edgewright.device.here.runtime import open_session
from edgewright.device.measure import Artifact, Latency, Model, Runs, as_artifact, reference_model
from edgewright.device.processor import processor
from edgewright.device.profile import Profile


class Cpu(Device):
    """This machine, batch 1, `threads` threads inside an operator; with one, the process keeps to the idlest core
    while it measures."""

    name: str = "cpu"
    can: frozenset[Can] = frozenset({"measure", "predict", "peak_memory"})

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise BadInput(f"threads must be at least 1 (got {threads})")
        self.threads = threads

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, **_here(), "threads": self.threads}

    def take_turns(self, artifacts: Sequence[Artifact], runs: Runs) -> list[Latency]:
        with pinned(self.threads):
            # Opened here, so that threads which a runtime starts are born on the core that is measured on.
            calls = [self._call(artifact) for artifact in artifacts]
            reference = self._call(Artifact(reference_model()))
            times, beside = in_turns(calls, reference, runs.most, runs.fewest, runs.seconds)
        return [Latency.of(one, beside) for one in times]

    def profile(self, model: Model, *, seconds: float = 0.03, runs: int = 6) -> Profile:
        file = as_artifact(model).file
        with pinned(self.threads):
            opened = functools.partial(_profiling, file, self.threads)
            return Profile.of(profiled(opened, seconds, runs))

    def steady(self) -> AbstractContextManager[None]:
        return pinned(self.threads)

    def opens(self, runtime: str) -> bool:
        return True

    def _call(self, artifact: Artifact) -> Call:
        if artifact.opened is not None:
            return artifact.opened(self.threads)
        session = open_session(artifact.file, self.threads)
        try:
            return caller(session)
        except ValueError as error:
            raise BadInput(str(error)) from None


def _profiling(file: bytes | Path, threads: int, prefix: str) -> Any:
    return open_session(file, threads, profile_prefix=prefix)


@functools.cache
def _here() -> dict[str, Any]:
    return processor(agent.facts())
