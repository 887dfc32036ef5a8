"""The folder of one run: which file is where, and who may write to it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.data import read_json, read_yaml
from edgewright.core.errors import BadInput
from edgewright.core.files import sha256
from edgewright.core.plan import Plan
from edgewright.core.result import Result

PLAN = "_plan.json"  # what a folder's plan is called, after the command that it is of
WITH_RESUME = ("design", "adapt", "compress")  # the others go on where the same is asked again


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder. Nothing is made until somebody writes."""

    path: Path

    @property
    def plan(self) -> Path:
        return self.path / "plan.yaml"

    @property
    def env(self) -> Path:
        return self.path / "env.json"

    @property
    def study(self) -> Path:
        return self.path / "study.db"

    @property
    def architecture(self) -> Path:
        return self.path / "architecture.json"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def onnx(self) -> Path:
        return self.path / "model.onnx"

    @property
    def float_onnx(self) -> Path:
        """The float32 network of a run that ships another type; missing where `onnx` is float itself."""
        return self.path / "model-fp32.onnx"

    @property
    def rewrites(self) -> Path:
        """What was done to the network of architecture.json, where it was compressed."""
        return self.path / "compress.json"

    @property
    def start(self) -> Path:
        """What the structure of the run that it was started from follows from, where it was; without weights."""
        return self.path / "start"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def begun_by(self) -> str | None:
        """The command that began what is here, or None: each leaves a NAME_plan.json, `design` a plan.yaml."""
        named = sorted(path.name.removesuffix(PLAN) for path in self.path.glob(f"*{PLAN}"))
        return named[0] if named else "design" if self.plan.exists() else None

    @property
    def resumed_by(self) -> str | None:
        """What to do to go on with what was begun here, or None."""
        if self.begun_by in WITH_RESUME:
            return f"edgewright {self.begun_by} --resume {self.path}"
        return "the same command again" if self.begun_by else None

    @property
    def checkpoints(self) -> Path:
        """Absolute, because the workers of a cluster read here and may have another working directory."""
        return self.path.absolute() / "checkpoints"

    @property
    def holds_run(self) -> bool:
        files = (self.study, self.result, self.onnx, self.model)
        return self.begun_by is not None or any(path.exists() for path in files)

    def check_new(self) -> None:
        """Refuse, before any work is done, a folder that holds a run or cannot be made here. Makes nothing."""
        if self.holds_run:
            go_on = f", or {self.resumed_by}" if self.resumed_by else ""
            what = "another run" if self.begun_by in (None, "design") else f"a run of edgewright {self.begun_by}"
            raise BadInput(f"{self.path}: holds {what}; choose another folder{go_on}")
        nearest = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        if not nearest.is_dir():
            raise BadInput(f"{nearest}: is a file, not a folder")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise BadInput(f"{self.path}: cannot be written (no permission in {nearest}); choose another folder")

    def clear(self) -> None:
        """Remove all that a job writes here, and nothing else."""
        for folder in (self.checkpoints, self.start):
            shutil.rmtree(folder, ignore_errors=True)
        written = (self.plan, self.env, self.study, self.architecture, self.result, self.report)
        models = (self.model, self.onnx, self.float_onnx, self.rewrites)
        for path in (*written, *models, *self.path.glob(f"*{PLAN}"), *self.path.glob(f"{self.study.name}-*")):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed process had not finished writing; for whoever holds the folder."""
        for place in (self.path, self.checkpoints):
            for path in place.glob(".*.part"):
                path.unlink(missing_ok=True)

    def read_plan(self) -> Plan:
        if not self.path.is_dir():
            raise BadInput(f"{self.path}: no such run folder")
        if not self.plan.exists():
            if self.onnx.exists() and self.report.exists():
                raise BadInput(f"{self.path}: holds a network that is not of a run; use its {self.onnx.name}")
            if self.begun_by:
                raise BadInput(f"{self.path}: edgewright {self.begun_by} has not finished here; {self.resumed_by}")
            raise BadInput(f"{self.path}: not a run folder (it holds no plan.yaml)")
        return Plan.parse(read_yaml(self.plan), str(self.plan))

    def read_result(self) -> Result:
        self.read_plan()
        if not self.result.exists():
            raise BadInput(f"{self.path}: this run has not finished; edgewright design --resume {self.path}")
        return Result.parse(read_json(self.result), str(self.result))

    def check_file(self, path: Path) -> None:
        """Refuse a deployed file that is not the one the run wrote."""
        expected = self.read_result().files.get(path.name)
        again = "put a copy back, or make it again into another folder"
        if self.begun_by == "design":
            again = f"put a copy back, or run the plan again: edgewright design --config {self.plan} --out FOLDER"
        if not path.exists():
            raise BadInput(f"{path}: missing; {again}")
        if expected is not None and sha256(path) != expected:
            raise BadInput(f"{path}: altered since the run (its SHA-256 is not the one in result.json); {again}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; a second process that tries gets a clear error. Released when we die."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / ".lock").open("w")
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be written ({error.strerror}); see to the disk") from None
        with handle:
            try:
                import fcntl
            except ImportError:  # no advisory locks on this system
                yield
                return
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BadInput(f"{self.path}: another process is working on this run") from None
            yield
