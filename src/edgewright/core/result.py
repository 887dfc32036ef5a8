"""The result of a run: what result.json holds, field by field."""

from typing import Any, Literal

from pydantic import Field

from edgewright.core.cost import Budget, Cost
from edgewright.core.data import Frozen


class Metrics(Frozen):
    """Top-1 accuracy in percent; test is the held-out part, read once, after the network was chosen."""

    test_accuracy: float
    val_accuracy: float


class Export(Frozen):
    """How the exported file compares with the trained network on held-out samples.

    cosine: of all outputs as one vector.   batch: 8 where the graph, built for eight samples, says the same of each; 1
    where it takes one only.   Both None where they were not looked at.
    """

    max_abs_difference: float
    top1_agreement: float
    samples: int
    cosine: float | None = None
    batch: int | None = None


class Search(Frozen):
    """How many candidates were scored, by what, and how fast."""

    evaluated: int
    proxy: str
    strategy: str
    seconds: float
    networks_per_second: float


class Finalist(Frozen):
    """One finalist: latency predicted and measured (ms), proxy score, accuracy on val (percent) after its last rung."""

    key: str
    predicted_ms: float
    measured_ms: float
    score: float
    val_accuracy: float | None = None
    rung: int | None = None


class LatencyCheck(Frozen):
    """Predicted against measured latency over whole networks, those of the calibration (each predicted without itself)
    and the measured candidates: how far the table may be trusted."""

    networks: int
    rank_correlation: float | None
    median_error: float


class BlockShare(Frozen):
    """One block of the chosen network: its share of the latency (ms, from the table), MACs, parameters, output."""

    name: str
    latency_ms: float
    macs: int
    params: int
    output_shape: tuple[int, ...]


class Noise(Frozen):
    """The latency measurement: runs, the fixed reference network's median, and how far it drifted (0.05 = 5 %)."""

    runs: int
    reference_ms: float
    reference_drift: float
    noisy: bool


class Result(Frozen):
    """Everything a run found out. `schema` grows when a field changes its meaning or goes away.

    runtime_peak_bytes: activations that the runtime's allocator held at most, beside the planned `costs.peak_memory`;
    null where the runtime does not say.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
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
    latency_check: LatencyCheck | None
    latency_noise: Noise
    blocks: list[BlockShare]
    seconds: dict[str, float]
    seed: int
    versions: dict[str, str]
    classes: list[str]
    files: dict[str, str]
