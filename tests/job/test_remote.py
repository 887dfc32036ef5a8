"""Whole jobs on a device behind a pipe, and what is left of them when it is lost."""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import pytest

from edgewright.core.cost import Budget
from edgewright.core.errors import BadInput, DeviceLost
from edgewright.core.study import Study
from edgewright.device import agent, resolve
from edgewright.device.remote import Remote
from edgewright.device.resolve import make_device
from edgewright.export.bench import bench
from edgewright.export.ship.ship import ship
from edgewright.job.compress.run import compress_run
from edgewright.job.design.run import design, resume

FAKE = Path(__file__).parent.parent / "device" / "fake_agent.py"
ASKED = {"device": "loopback", "candidates": 12, "finalists": 2, "epochs": 1, "workers": 1}


@pytest.fixture
def becomes(monkeypatch: pytest.MonkeyPatch):
    """From now on `loopback` has an agent that does something else when it was asked for the same so many times."""

    def put(fault: str, request: str = "measure", after: int = 0) -> None:
        command = (sys.executable, str(FAKE), agent.__file__, fault, request, str(after))
        known = resolve.HERE["loopback"]
        monkeypatch.setitem(
            resolve.HERE, "loopback", dataclasses.replace(known, make=partial(Remote, "loopback", command))
        )

    return put


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_a_design_goes_on_when_the_device_is_back_if_it_is_the_same(tmp_path: Path, becomes) -> None:
    """Lost before anything is written, lost while finalists are measured, back with another runtime, and back."""
    out, asked = tmp_path / "run", {**ASKED, "budget": Budget(latency_ms=5.0, macs=2e5)}
    becomes("dies", "measure")
    with pytest.raises(
        DeviceLost, match="loopback: asked for the times of 2 networks, it ended"
    ):  # one, and the reference
        design("digits", out=out, **asked)
    assert not out.exists()
    becomes("nan", "measure", after=25)  # 8 networks in three rounds calibrate
    with pytest.raises(DeviceLost, match="a number that is not finite"):
        design("digits", out=out, **asked)
    assert not (out / "result.json").exists() and not list(out.glob(".*.part"))
    becomes("newer runtime", "hello")
    with pytest.raises(BadInput, match=r"begun on another device \(runtime version .*, here 99\.1\)") as error:
        resume(out)
    assert error.value.exit_code == 2
    becomes("none")
    with Study(out / "study.db") as study:
        before = [candidate.key for candidate in study.candidates()]
    result = resume(out)
    with Study(out / "study.db") as study:
        assert [candidate.key for candidate in study.candidates()] == before  # nothing was searched twice
    assert result.device == make_device("loopback").identity() and result.device["name"] == "loopback"
    assert result.costs["latency"].how == "measured" and result.latency_noise.runs == 300
    report = bench(out, runs=20)
    assert report.same_machine and report.device == result.device
    becomes("newer runtime", "hello")
    assert not bench(out, runs=20).same_machine


def test_a_file_is_chosen_by_what_was_measured_there(digits_run, tmp_path: Path, becomes) -> None:
    shipped = ship(digits_run.path, device="loopback", out=tmp_path / "out", max_drop=100.0)
    assert (shipped.choice.target, shipped.choice.latency_of) == ("loopback", "measured")
    rows = {candidate.name: candidate for candidate in shipped.choice.candidates}
    assert rows["onnxruntime fp32"].latency_ms and shipped.choice.runs >= 40
    assert rows["litert fp32"].refused == "files of litert cannot be measured on loopback"
    becomes("dies", "measure")
    with pytest.raises(DeviceLost):
        ship(digits_run.path, device="loopback", out=tmp_path / "lost")
    assert not (tmp_path / "lost").exists()


def test_a_compression_that_loses_its_device_is_no_compression_without_a_way(digits_run, tmp_path, becomes) -> None:
    """Lost in the middle of one of several ways: the others are not tried, and nothing is written."""
    becomes("dies", "profile")
    with pytest.raises(DeviceLost, match="asked for the profile of a network, it ended"):
        steps = ("prune", "linearise")
        compress_run(digits_run.path, out=tmp_path / "c", device="loopback", latency_ms=0.001, steps=steps)
    assert not (tmp_path / "c").exists()
