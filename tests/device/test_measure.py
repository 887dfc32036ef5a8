"""The measuring protocol on a fake clock: percentiles, drift, pinning."""

import os

import numpy as np
import onnx
import pytest

from edgewright.core.errors import BadInput
from edgewright.device.agent import in_turns, pinned
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import Latency, Runs, drift, quiet_mean, reference_graph, reference_model
from edgewright.ir.graph import GraphBuilder, count_macs, count_params
from edgewright.ir.to_onnx import to_onnx


class Machine:
    """A clock that stands still unless something runs."""

    def __init__(self) -> None:
        self.now = 0

    def clock(self) -> int:
        return self.now

    def taking(self, times_ms):
        times = iter(times_ms)

        def call() -> None:
            self.now += int(next(times) * 1e6)

        return call


def steadily(value: float, then: float | None = None, after_ms: float = 0, machine: Machine | None = None):
    while True:
        yield value if then is None or machine is None or machine.now < after_ms * 1e6 else then


def measured(machine: Machine, calls, reference, most: int, fewest: int = 0, seconds: float = np.inf) -> list[Latency]:
    times, beside = in_turns(calls, reference, most, fewest, seconds, machine.clock)
    return [Latency.of(one, beside) for one in times]


def test_percentiles_are_those_of_the_runs() -> None:
    machine = Machine()

    def sawtooth():
        yield from [1.0] * 100  # warm-up: far more than it needs
        while True:
            yield from np.arange(1, 11) / 10

    # The warm-up takes 30 ms of 1 ms runs, so the timed runs begin among the first hundred: measure many.
    call = machine.taking(sawtooth())
    (latency,) = measured(machine, [call], machine.taking(steadily(0.5)), 400)
    assert latency.runs == 400 and len(latency.samples) == 400
    assert latency.median_ms == pytest.approx(np.median(latency.samples))
    assert latency.p90_ms == pytest.approx(np.percentile(latency.samples, 90))
    assert latency.p99_ms == pytest.approx(np.percentile(latency.samples, 99))
    assert latency.minimum_ms == pytest.approx(0.1)
    assert latency.reference_ms == pytest.approx(0.5) and latency.reference_drift == 0 and not latency.noisy


@pytest.mark.parametrize(("slower", "noisy"), [(1.04, False), (1.07, True)])
def test_reference_that_slows_down_is_flagged(slower: float, noisy: bool) -> None:
    machine = Machine()
    reference = machine.taking(steadily(1.0, slower, 200, machine))
    (latency,) = measured(machine, [machine.taking(steadily(1.0))], reference, 200)
    assert latency.noisy is noisy
    assert latency.reference_drift == pytest.approx(slower - 1, abs=1e-6)


def test_several_networks_take_turns() -> None:
    machine = Machine()
    calls = [machine.taking(steadily(value)) for value in (1.0, 2.0)]
    latencies = measured(machine, calls, machine.taking(steadily(0.5)), 20)
    assert [latency.median_ms for latency in latencies] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("most", "fewest", "seconds", "runs"),
    [
        (300, 0, np.inf, 300),
        (300, 0, 3.0, 200),  # bursts of 10 and 5 runs of 10 and 10 ms: 20 of them fill 3 s
        (300, 240, 3.0, 240),  # however long that takes
        (7, 0, 3.0, 7),  # one burst of 7
    ],
)
def test_as_many_runs_as_fit(most: int, fewest: int, seconds: float, runs: int) -> None:
    machine = Machine()
    call, reference = machine.taking(steadily(10.0)), machine.taking(steadily(10.0))
    (latency,) = measured(machine, [call], reference, most, fewest, seconds)
    assert latency.runs == len(latency.samples) == runs


def test_drift_and_quiet_mean_by_hand() -> None:
    assert drift([1, 1, 2, 2, 1, 1, 4, 4]) == 3
    assert quiet_mean([9, 1, 3, 7]) == 2
    assert quiet_mean([5.0]) == 5


def test_a_real_network_costs_more_when_it_does_more() -> None:
    def network(width: int) -> bytes:
        builder = GraphBuilder((3, 24, 20))
        builder.conv(builder.relu(builder.conv(0, width, 3)), width, 3)
        return to_onnx(builder.graph())

    small, large = Cpu().measure([network(width) for width in (8, 64)], Runs(most=20))
    assert 0 < small.minimum_ms <= small.median_ms <= small.p90_ms <= small.p99_ms
    assert large.minimum_ms > 2 * small.minimum_ms


def test_pinning_is_undone() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity on this system")
    before = os.sched_getaffinity(0)
    with pytest.raises(RuntimeError), pinned(1):
        assert len(os.sched_getaffinity(0)) == 1
        raise RuntimeError
    assert os.sched_getaffinity(0) == before
    with pinned(2):
        assert os.sched_getaffinity(0) == before


def test_reference_network_stays_what_it_is() -> None:
    """Every table that was measured says times in its terms."""
    model = onnx.load_from_string(reference_model())
    block = ["Conv", "Relu", "Conv", "Relu", "Conv", "Add"]
    assert [node.op_type for node in model.graph.node] == [
        "Conv", "Relu", *3 * block, "GlobalAveragePool", "Flatten", "Gemm",
    ]  # fmt: skip
    assert (count_macs(reference_graph()), count_params(reference_graph())) == (1_622_176, 6_858)
    weights = [onnx.numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer]
    assert sum(np.abs(array).sum() for array in weights) == pytest.approx(1635.79085, rel=1e-6)


def test_broken_and_missing_files_are_bad_input(tmp_path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(BadInput, match=r"bad\.onnx: ONNX Runtime cannot open it"):
        Cpu().measure([tmp_path / "bad.onnx"])
    with pytest.raises(BadInput, match=r"none\.onnx: no such file"):
        Cpu().measure([tmp_path / "none.onnx"])
