"""`device add`, `list` and `suggest` from the command line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from edgewright.cli.app import app
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
