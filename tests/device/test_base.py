"""What every device answers, whatever it can; how often it measures; when two are one."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from edgewright.core.errors import BadInput
from edgewright.device import base
from edgewright.device.base import Device, difference
from edgewright.device.board.board import Board
from edgewright.device.board.target import Target
from edgewright.device.compare import compared
from edgewright.device.measure import Artifact, Latency, Runs
from edgewright.device.resolve import devices, make_device
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.to_onnx import to_onnx

LAW = {
    "clock_mhz": 10.0,
    "cycles_per_mac": {"dense": 1.0, "pointwise": 2.0, "depthwise": 3.0, "linear": 4.0},
    "source": "made up",
}
WORDS: dict[str, Any] = {"name": "b", "summary": ".", "source": ".", "runtime": "mine", "types": ("int8",)}


def network(width: int = 6) -> Graph:
    builder = GraphBuilder((3, 9, 7))
    builder.relu(builder.conv(0, width, 3, 2))
    return builder.graph()


class Drifting(Device):
    """Measures as the drifts say, each time in so many seconds of a clock of its own."""

    name = "drifting"
    can = frozenset({"measure"})

    def __init__(self, drifts: Sequence[float], seconds: float) -> None:
        self.left, self.seconds, self.now = list(drifts), seconds, 0.0

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def take_turns(self, artifacts: Sequence[Artifact], runs: Runs) -> list[Latency]:
        self.now += self.seconds
        drift = self.left.pop(0)
        return [Latency.of([1.0], [1.0]).model_copy(update={"reference_drift": drift}) for _ in artifacts]


@pytest.mark.parametrize(
    ("seconds", "drifts", "tries", "kept"),
    [
        (0.1, [0.01, 0.0, 0.0], 1, 0.01),  # quiet at once: not repeated for luck
        (0.1, [0.3, 0.2, 0.25, 0.0], 3, 0.2),  # never quiet: the quietest
        (3.6, [0.3, 0.2, 0.1], 2, 0.2),  # two of them in ten seconds
        (12.0, [0.3, 0.2, 0.1], 1, 0.3),  # longer than that: one, however noisy
    ],
)
def test_a_noisy_measurement_is_repeated_as_long_as_there_is_time(seconds, drifts, tries, kept, monkeypatch) -> None:
    device = Drifting(drifts, seconds)
    monkeypatch.setattr(base, "monotonic", lambda: device.now)
    found = device.measure([b"one", b"two"], Runs(tries=3))
    assert [latency.reference_drift for latency in found] == [kept, kept]
    assert len(drifts) - len(device.left) == tries
    assert device.measure([]) == []


@pytest.mark.parametrize("words", [None, {}, {"law": LAW}])
def test_every_device_answers_whatever_it_can(words: dict | None) -> None:
    """This machine, a board of which nothing is known, one with a law: the same questions, no word of what they are."""
    device = make_device("cpu") if words is None else Board(Target(**{**WORDS, **words}))
    graph, file = network(), to_onnx(network())
    assert device.can <= {"measure", "predict", "limits", "peak_memory"}
    (latency,) = device.measure([file], Runs(most=20))
    assert math.isfinite(latency.median_ms) and (latency.how == "law") == bool(words)
    assert (device.predict(file) is None) == (not words)
    predicted = device.latency_model([graph], seconds=0.2)
    assert predicted.predict([("all", graph)]) > 0 and (predicted.how == "law") == bool(words)
    assert device.refused(graph) == device.forbidden(file) == device.refusals(file, kind=device.types[0]) == []
    assert {"macs", "params", "size", "peak_memory"} <= set(device.costs(graph))
    assert device.key == " | ".join(f"{k} {v}" for k, v in device.identity().items() if k != "cores")
    device.check(["size"])
    device.refuse_other(device.identity())


def test_what_cannot_be_measured_says_so() -> None:
    board = Board(Target(**WORDS, law=LAW))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="nothing can be measured on b; name a device that can"):
        board.profile(to_onnx(network()))


def test_what_a_device_can_is_known_before_it_is_made() -> None:
    for name, known in devices().items():
        device = known.make(1)
        assert (device.name, device.can) == (name, known.can) and known.summary and known.source


def test_what_laws_say_is_compared_exactly() -> None:
    one, two = Latency.by_law(3.0), Latency.by_law(4.0)
    assert compared(one, two).surely_faster and compared(one, two).value == 0.75
    assert not compared(two, two).surely_faster and compared(two, one).low == compared(two, one).high


def test_two_identities_are_one_device_unless_a_word_that_counts_differs() -> None:
    old = {"name": "cpu", "cpu": "A", "cores": 8, "runtime_version": "1.2", "threads": 1}
    now = {**old, "cores": 2, "caches": "L1 32K"}  # a newer version knows more words, a container has fewer cores
    assert difference(old, now) is None
    assert difference(now, old) == "caches L1 32K, here None"
    assert difference(old, {**now, "runtime_version": "1.3"}) == "runtime version 1.2, here 1.3"
    with pytest.raises(BadInput, match=r"begun on another device \(cpu B, here") as error:
        make_device("cpu").refuse_other({**make_device("cpu").identity(), "cpu": "B"})
    assert error.value.exit_code == 2
