"""The result of a run: what result.json holds, field by field."""

from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field, model_validator

from edgewright.core.cost import Budget, Cost
from edgewright.core.data import Frozen

# Figures, and what schema 1 called them.
FIGURE = AliasChoices("figure", "accuracy")
VAL, TEST = AliasChoices("val", "val_accuracy"), AliasChoices("test", "test_accuracy")


class Written(Frozen):
    """What a command writes of what came out. `schema` grows when a field changes its meaning or goes away; schema 1 is
    still read: fields that went away (`gone`) are dropped here, and values that changed know what they were called.
    """

    gone: ClassVar[tuple[str, ...]] = ()
    schema_version: Literal[2] = Field(default=2, alias="schema")

    @model_validator(mode="before")
    @classmethod
    def _as_schema_1_had_it(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("schema") == 1:
            return {name: value for name, value in data.items() if name not in cls.gone} | {"schema": 2}
        return data


class Metrics(Frozen):
    """How good the network is. decides: name of the figure that decided.   test, val: figures by name, percent where
    the field uses percent; test is the held-out part, read once, after the network was chosen.   each: what figures of
    test are made of, by name, then by the outputs' names ({"recall": {"cat": 93.1}}).
    """

    decides: str
    test: dict[str, float]
    val: dict[str, float]
    each: dict[str, dict[str, float]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _as_schema_1_had_it(cls, data: Any) -> Any:
        if isinstance(data, dict) and "test_accuracy" in data:
            return {
                "decides": "accuracy",
                "test": {"accuracy": data["test_accuracy"]},
                "val": {"accuracy": data["val_accuracy"]},
            }
        return data

    @property
    def on_test(self) -> float:
        """The figure that decides, on the test part."""
        return self.test[self.decides]

    @property
    def on_val(self) -> float:
        return self.val[self.decides]


class OutputDifference(Frozen):
    """How one output of the file differs from the network's. max_relative_difference: the largest difference over the
    largest value; None where only the difference itself was kept."""

    name: str
    max_relative_difference: float | None
    max_abs_difference: float


class Export(Frozen):
    """How the exported file compares with the trained network on held-out samples.

    outputs: one entry for each.   same: percent of the answers that are the same.   batch: 8 where the graph, built for
    eight samples, says the same of each; 1 where it takes one only, None where it was not looked at.
    """

    outputs: tuple[OutputDifference, ...]
    same: float
    samples: int
    batch: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_schema_1_had_it(cls, data: Any) -> Any:
        if isinstance(data, dict) and "top1_agreement" in data:
            only = {"name": "logits", "max_relative_difference": None, "max_abs_difference": data["max_abs_difference"]}
            kept = {name: data.get(name) for name in ("samples", "batch")}
            return {"outputs": [only], "same": 100 * data["top1_agreement"], **kept}
        return data


class Search(Frozen):
    """How many candidates were scored, by what, and how fast."""

    evaluated: int
    proxy: str
    strategy: str
    seconds: float
    networks_per_second: float


class Finalist(Frozen):
    """One finalist: latency predicted and measured (ms), proxy score, the figure that decides on val after its last
    rung."""

    key: str
    predicted_ms: float
    measured_ms: float
    score: float
    val: float | None = Field(default=None, validation_alias=VAL)
    rung: int | None = None


class Contestant(Frozen):
    """A finalist of a run that other networks were started from: by which start (null: from scratch), and the figure
    that decides on val after its last training."""

    key: str
    start: str | None
    val: float | None


class BesideRandom(Frozen):
    """The search's choice, `key`, beside random networks inside the budget, all trained as briefly (`compare_random`).

    networks: random ones that have a figure.   chosen, average, best: the figure that decides on val, of the choice,
    and of the random ones.   improvement, best_improvement: 100 (chosen - average) / average and that of the best
    random one, percent, above 0 where better.   null where a training diverged, or there is nothing to divide by.
    """

    key: str
    networks: int
    chosen: float | None
    average: float | None
    best: float | None
    improvement: float | None
    best_improvement: float | None

    def text(self, unit: str = "%") -> str:
        """For people."""
        if self.improvement is None or self.best_improvement is None:
            return f"nothing to compare with {self.networks} random networks"
        return (
            f"{self.improvement:+.1f} % over the average of {self.networks} random networks inside the budget "
            f"({self.chosen:.2f} against {self.average:.2f} {unit}; the best of them {self.best_improvement:+.1f} %)"
        )


class LatencyCheck(Frozen):
    """Predicted against measured latency over whole networks, those of the calibration (each predicted without itself)
    and the measured candidates: how far the table may be trusted."""

    networks: int
    rank_correlation: float | None
    median_error: float


class BlockShare(Frozen):
    """One block of the chosen network: its share of the latency (ms, from the table), MACs, parameters, output.

    more_outputs: shapes of further outputs, of a block that has several.
    """

    name: str
    latency_ms: float
    macs: int
    params: int
    output_shape: tuple[int, ...]
    more_outputs: tuple[tuple[int, ...], ...] = ()


class Noise(Frozen):
    """The latency measurement: runs, the fixed reference network's median, and how far it drifted (0.05 = 5 %)."""

    runs: int
    reference_ms: float
    reference_drift: float
    noisy: bool


class Result(Written):
    """Everything a run found out. `schema` grows when a field changes its meaning or goes away; schema 1 is still read.

    start: the network that had learned, of which this one was made: `source`, `sha256`, `licence`, what it took
    (`size`, `mean`, `std`, ...) and what of it is `kept`; null from scratch.
    contest: the finalists by where they come from.
    runtime_peak_bytes: activations that the runtime's allocator held at most, beside the planned `costs.peak_memory`;
    null where the runtime does not say.
    """

    gone = ("classes",)
    task: dict[str, Any]
    device: dict[str, Any]
    budget: Budget
    architecture: dict[str, Any]
    key: str
    costs: dict[str, Cost]
    runtime_peak_bytes: int | None = None
    metrics: Metrics
    export: Export
    search: Search
    finalists: list[Finalist]
    start: dict[str, Any] | None = None
    contest: list[Contestant] = Field(default_factory=list)
    random: BesideRandom | None = None
    latency_check: LatencyCheck | None
    latency_noise: Noise
    blocks: list[BlockShare]
    seconds: dict[str, float]
    seed: int
    versions: dict[str, str]
    files: dict[str, str]
