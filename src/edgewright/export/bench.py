"""Measure a run's exported model again, on this machine, and hold it against the budget and the run's own figures."""

from pathlib import Path
from typing import Any

from edgewright.core.cost import Budget, Cost, show, words
from edgewright.core.data import Frozen
from edgewright.core.result import Noise
from edgewright.core.run import RunFolder
from edgewright.device.base import difference
from edgewright.device.measure import NOISY_DRIFT, Runs
from edgewright.device.resolve import make_device


class BenchReport(Frozen):
    """What was measured here and now.

    costs: of the file as it is; macs and params are the run's own.   recorded: the costs in result.json.
    broken: one sentence for each ceiling that is broken; empty when the budget is met.
    same_machine: whether device, runtime and threads are those of the run.
    """

    model: str
    device: dict[str, Any]
    same_machine: bool
    budget: Budget
    costs: dict[str, Cost]
    recorded: dict[str, Cost]
    broken: list[str]
    noise: Noise

    def text(self) -> str:
        """For people: one line for each cost, then the verdict."""
        ceilings = self.budget.ceilings()
        lines = [f"{'':<14}{'now':<20}{'in the run':<20}ceiling"]
        for name, now in self.costs.items():
            ceiling = show(name, ceilings[name]) if name in ceilings else "-"
            lines.append(f"{words(name):<14}{show(name, now.value):<20}{_recorded(name, self.recorded):<20}{ceiling}")
        latency = self.costs["latency"]
        spread = ", ".join(f"{name} {show('latency', value)}" for name, value in _spread(latency).items())
        runs = f"over {self.noise.runs} runs: {spread}" if self.noise.runs else "by the device's law; nothing was run"
        lines.append(f"latency {runs}")
        if not self.same_machine:
            lines.append("this is not the machine, runtime or number of threads that the run measured with")
        if self.noise.noisy:
            lines.append(
                f"the machine was not quiet: the reference network drifted by {100 * self.noise.reference_drift:.0f} %"
            )
        lines.append("budget: " + ("; ".join(self.broken) if self.broken else "met"))
        return "\n".join(lines)


def bench(run_path: str | Path, threads: int | None = None, runs: int = 500) -> BenchReport:
    """Measure model.onnx of a finished run: latency by the device's protocol, size of the file, peak memory.

    Args:
        threads: of the runtime (default: the plan's).
        runs: timed runs, at least 200 for a p99 that means something.
    Errors: BadInput for a folder that is no finished run and an altered model file. A broken ceiling is not an error
        here: it is said in `broken`.
    """
    run = RunFolder(Path(run_path))
    result, plan = run.read_result(), run.read_plan()
    run.check_file(run.onnx)
    device = make_device(plan.device, threads or plan.threads)
    (latency,) = device.measure([run.onnx], Runs(most=runs))
    costs = {**result.costs, "latency": latency.cost(), **device.shipped(run.onnx)}
    return BenchReport(
        model=str(run.onnx),
        device=device.identity(),
        same_machine=difference(result.device, device.identity()) is None,
        budget=result.budget,
        costs=costs,
        recorded=result.costs,
        broken=result.budget.broken(costs),
        noise=Noise(
            runs=latency.runs,
            reference_ms=latency.reference_ms,
            reference_drift=latency.reference_drift,
            noisy=latency.reference_drift > NOISY_DRIFT,
        ),
    )


def _recorded(name: str, costs: dict[str, Cost]) -> str:
    return show(name, costs[name].value) if name in costs else "-"


def _spread(latency: Cost) -> dict[str, float]:
    figures = {"minimum": latency.minimum, "median": latency.p50, "p90": latency.p90, "p99": latency.p99}
    return {name: value for name, value in figures.items() if value is not None}
