"""How often an exported file is measured: as often as the machine is noisy, and time allows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgewright.export.deploy import RUNS, TRIES, settled


def device_of(median_ms: float, drifts: list[float]) -> Any:
    """A device whose measurements drift by `drifts`, one after the other."""
    left = iter(drifts)

    def measure(path: Path, runs: int) -> SimpleNamespace:
        assert runs == RUNS
        drift = next(left)
        return SimpleNamespace(median_ms=median_ms, reference_drift=drift, noisy=drift > 0.05)

    return SimpleNamespace(measure=measure, left=left)


@pytest.mark.parametrize(
    ("median_ms", "drifts", "tries", "kept"),
    [
        (0.3, [0.01, 0.0, 0.0], 1, 0.01),  # quiet at once: not repeated for luck
        (0.3, [0.3, 0.2, 0.25], TRIES, 0.2),  # never quiet: the quietest
        (12.0, [0.3, 0.2, 0.1], 2, 0.2),  # 3.6 s each: two of them in ten seconds
        (40.0, [0.3, 0.2, 0.1], 1, 0.3),  # 12 s each: one, however noisy
    ],
)
def test_a_noisy_measurement_is_repeated_as_long_as_there_is_time(median_ms, drifts, tries, kept):
    device = device_of(median_ms, drifts)
    assert settled(device, Path("a.onnx")).reference_drift == kept
    assert len(drifts) - len(list(device.left)) == tries
