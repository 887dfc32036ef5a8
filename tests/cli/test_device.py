"""`device add`, `list` and `suggest` from the command line."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from edgewright.cli.app import app
from edgewright.device import resolve
from edgewright.device.remote import Remote
from edgewright.space.resolve import make_tabular


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with 12 samples of a device twice as slow as the one in the prior."""
    monkeypatch.setenv("EDGEWRIGHT_DEVICES", str(tmp_path / "devices"))
    rng = np.random.default_rng(0)
    space = make_tabular("nbmacro")
    prior = np.array([1.0 + sum(space.encode(space.at(row))) for row in range(len(space))])
    np.savez(tmp_path / "prior.npz", other=prior, another=prior**1.1)
    rows = rng.choice(len(space), 12, replace=False)
    (tmp_path / "s.csv").write_text("index,latency_ms\n" + "\n".join(f"{row},{2 * prior[row]}" for row in rows))
    return tmp_path, prior


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_a_device_is_added_predicted_and_listed(here) -> None:
    folder, prior = here
    files = ("--from-samples", str(folder / "s.csv"), "--prior", str(folder / "prior.npz"))
    done = run("device", "add", "pi", "--space", "nbmacro", *files, "--out", str(folder / "o.npz"))
    assert done.exit_code == 0, done.stderr
    assert "6561 networks of nbmacro" in done.stdout
    predicted = np.load(folder / "o.npz")["latency_ms"]
    assert np.median(np.abs(predicted / (2 * prior) - 1)) < 0.05
    (listed,) = json.loads(run("device", "list", "--json").stdout)
    assert (listed["name"], listed["space"], len(listed["indices"])) == ("pi", "nbmacro", 12)
    assert run("device", "list").stdout.startswith("pi")


def test_faults_are_one_line(here) -> None:
    folder, _ = here
    (folder / "bad.csv").write_text("row,ms\n1,2\n")
    done = run("device", "add", "pi", "--space", "nbmacro", "--from-samples", str(folder / "bad.csv"))
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert run("device", "list").stdout.startswith("none")
    odd = run("device", "add", "pi", "--from-samples", str(folder / "s.csv"), "--predict", "some")
    assert odd.exit_code == 2


def test_a_device_that_is_lost_is_one_line_and_says_how_to_go_on(digits_run, tmp_path, monkeypatch) -> None:
    gone = replace(resolve.HERE["loopback"], make=partial(Remote, "loopback", ("no-such-program",)))
    monkeypatch.setitem(resolve.HERE, "loopback", gone)
    found = run("export", str(digits_run.path), "--for", "loopback", "--choose", "--out", str(tmp_path / "out"))
    assert found.exit_code == 1 and not (tmp_path / "out").exists()
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("edgewright: ")]
    assert line.startswith(
        "edgewright: loopback: asked what it is, it could not be started (No such file or directory)"
    )
    assert line.endswith("; nothing was written")
    copy = shutil.copytree(digits_run.path, tmp_path / "run")
    (copy / "plan.yaml").write_text((copy / "plan.yaml").read_text() + "\ndevice: loopback\n")
    (copy / "result.json").unlink()
    found = run("design", "--resume", str(copy))
    assert found.exit_code == 1 and f"; go on with: edgewright design --resume {copy}" in found.stderr


def test_what_devices_can_is_listed() -> None:
    rows = {row["name"]: row["can"] for row in json.loads(run("devices", "--json").stdout)}
    assert rows["cpu"] == rows["loopback"] == ["measure", "peak_memory", "predict"]
    assert rows["stm32f746"] == ["limits", "predict"] and rows["raspberry-pi-4"] == ["limits"]
