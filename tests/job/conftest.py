"""A small network of the digits, compressed once for all tests that look at what came of it."""

from collections.abc import Iterator

import pytest
from compress_toys import MACS, OPTIONS, weights

from edgewright.core.run import RunFolder
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import Latency
from edgewright.job.compress import run as job
from edgewright.job.compress.decide import Decided
from edgewright.job.compress.plan import CompressPlan
from edgewright.job.compress.result import CompressResult
from edgewright.job.compress.run import compress_run
from edgewright.job.design import ground


@pytest.fixture(scope="session", autouse=True)
def briefly_calibrated() -> Iterator[None]:
    """The latency tables of this room are from few networks: how good a table can be is tested where tables are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground, "CALIBRATION_SECONDS", 2.0)
        patch.setattr(ground, "CALIBRATION_NETWORKS", 8)
        yield


@pytest.fixture(scope="session")
def decided(digits_run: RunFolder) -> Decided:
    """What is measured before anything learns, once for all tests that are about what comes after."""
    options = {name: value for name, value in OPTIONS.items() if name != "macs"}
    asked = CompressPlan.parse({**options, "source": str(digits_run.path), "budget": {"macs": MACS}}, "")
    return job.dry_run(job.resolved(asked))[1]


@pytest.fixture(scope="session")
def pruned(digits_run: RunFolder, decided: Decided, tmp_path_factory) -> tuple[RunFolder, CompressResult]:
    out = tmp_path_factory.mktemp("compressed") / "pruned"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "decide", lambda *_: (decided, []))
        return RunFolder(out), compress_run(digits_run.path, out=out, **OPTIONS)


@pytest.fixture
def known(decided: Decided, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "decide", lambda *_: (decided, []))


@pytest.fixture
def by_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files take as long as their weights have bytes: what depends on time is then the same on every machine."""

    def latency(milliseconds: float) -> Latency:
        return Latency.by_law(milliseconds).model_copy(update={"runs": 40, "samples": (milliseconds,) * 40})

    def take_turns(_device, artifacts, _runs):
        return [latency(weights(artifact.file) / 1e5) for artifact in artifacts]

    monkeypatch.setattr(Cpu, "take_turns", take_turns)
