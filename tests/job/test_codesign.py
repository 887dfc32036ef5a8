"""Codesign on real samples: it keeps the budget, its counts are the network's, and a cut one goes on."""

import json

import numpy as np
import pytest

from edgewright.core.cost import Budget
from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.device.board.board import Board
from edgewright.device.board.target import LAYERS, Target
from edgewright.device.few.analytic import fit_analytic
from edgewright.device.here.cpu import Cpu
from edgewright.device.resolve import make_device
from edgewright.job.codesign import run as job
from edgewright.search.strategies.flash import fit_accuracy_law, minimise
from edgewright.space.spaces.linked import LinkedDense, LinkedMobile

TRUE = np.array([0.02, 3e-9, 5e-9, 2e-8, 1e-8, 1e-9, 2e-9, 1e-3])  # ms by feature


def laws(space, picked):
    found = np.array([job._features(space, a) for a in picked])
    told = np.array([job.strengths(a.cells) for a in picked])
    accuracy = fit_accuracy_law(job.STRENGTHS, told, 100 / (1.2 + 10 / told[:, 0] + 4 / told[:, 1]))
    return accuracy, fit_analytic(found, found @ TRUE)


@pytest.mark.parametrize("family", [LinkedMobile, LinkedDense])
def test_what_the_search_counts_is_what_the_network_costs(family) -> None:
    space = family.for_images(3, 10, 32)
    picked = job.pick(space, 12, 2e7, seed=0)
    accuracy, latency = laws(space, picked)
    promise = job.Promise(space, Budget(macs=5e6), accuracy, latency, 1.0)
    device = make_device("cpu", 1)
    for architecture in picked:
        found = promise.costs(architecture.cells)
        counted = device.costs(space.graph(architecture))
        for name in ("macs", "params", "peak_memory", "size"):
            assert found[name] == counted[name].value, name
        assert found["latency"] == pytest.approx(job._features(space, architecture) @ TRUE, rel=1e-4)


def test_the_search_keeps_the_budget_and_beats_random_points() -> None:
    space = LinkedMobile.for_images(3, 10, 32)
    accuracy, latency = laws(space, job.pick(space, 25, 2e7, seed=0))
    promise = job.Promise(space, Budget(latency_ms=0.3, params=80_000), accuracy, latency, 1.0)
    point, value = minimise(promise.value, job.BOUNDS, job.GROUPS, coarse=job.coarse, num_coarse=4)
    assert promise.excess(promise.cells(point)) == 0
    rng = np.random.default_rng(0)
    random = min(promise.value([int(rng.integers(a, b + 1)) for a, b in job.BOUNDS]) for _ in range(1000))
    assert value <= random


def test_samples_are_spread_over_sizes() -> None:
    from edgewright.ir.graph import count_macs

    space = LinkedDense.for_images(3, 10, 32)
    macs = np.array([count_macs(space.graph(a)) for a in job.pick(space, 20, 5e7, seed=1)])
    gaps = np.diff(np.log(np.sort(macs)))
    assert gaps.max() < 4 * np.log(macs.max() / macs.min()) / 20


@pytest.mark.slow
def test_digits_end_to_end_and_again_from_what_is_kept(tmp_path, monkeypatch) -> None:
    plan = job.CodesignPlan(task="digits", family="dense", budget=Budget(latency_ms=0.6), samples=8, epochs=1)
    found = job.codesign(plan, tmp_path / "c", workers=1)
    assert found.costs["latency"].value <= 0.6
    assert found.costs["latency"].how == "measured"
    kept = json.loads((tmp_path / "c" / "architecture.json").read_text())
    assert kept == found.architecture
    monkeypatch.setattr(job, "train_finalist", lambda _: pytest.fail("a sample was trained twice"))
    again = job.codesign(plan, tmp_path / "c", workers=1)
    assert again.accuracy_law == found.accuracy_law
    with pytest.raises(BadInput, match="another codesign"):
        job.codesign(plan.model_copy(update={"seed": 1}), tmp_path / "c", workers=1)
    (tmp_path / "c" / "codesign.json").unlink()  # as of one that was cut at its end
    monkeypatch.setattr(Cpu, "identity", lambda self: {"name": "cpu", "cpu": "another"})
    with pytest.raises(BadInput, match="begun on another device"):
        job.codesign(plan, tmp_path / "c", workers=1)


def test_faults_are_one_sentence(tmp_path) -> None:
    plan = job.CodesignPlan(task="digits", budget=Budget(macs=1e6))
    with pytest.raises(BadInput, match="unknown family 'mobil'"):
        job.codesign(plan.model_copy(update={"family": "mobil"}), tmp_path / "x")
    with pytest.raises(BadInput, match="samples"):
        job.CodesignPlan(task="digits", budget=Budget(macs=1e6), samples=3)
    assert not (tmp_path / "x").exists()
    space = LinkedMobile.for_images(1, 10, 8)
    accuracy, latency = laws(space, job.pick(space, 10, 1e6, seed=0))
    tiny = plan.model_copy(update={"budget": Budget(params=10)})
    with pytest.raises(BudgetInfeasible, match="no network of linked-mobile"):
        job._search(tiny, make_device("cpu", 1), space, accuracy, latency, 50.0)


def test_a_cost_that_the_device_does_not_give_is_refused_before_anything_is_trained(tmp_path):
    plan = job.CodesignPlan(task="digits", budget=Budget(energy_mj=1.0), samples=8, epochs=1)
    with pytest.raises(BadInput, match="cpu does not say the energy of a network; leave energy_mj out"):
        job.codesign(plan, tmp_path / "c", workers=1)
    assert not (tmp_path / "c").exists()


def test_the_energy_that_the_search_keeps_is_the_boards_own():
    """Block by block it is that of the whole network, which the promise is held against in the end."""
    law = {"clock_mhz": 100.0, "cycles_per_mac": dict.fromkeys(LAYERS, 2.0), "source": "made up"}
    energy = {"pj_per_mac": 5.0, "pj_per_byte": 100.0, "mw": 20.0, "source": "made up"}
    words = {"name": "b", "summary": "B.", "source": "here", "runtime": "mine", "types": ["int8"]}
    board = Board(Target.parse({**words, "law": law, "energy": energy}, "b.yaml"))
    space = LinkedMobile.for_images(3, 7, 32)
    fitted = laws(space, job.pick(space, 12, 2e7, seed=0))
    promise = job.Promise(space, Budget(energy_mj=1e-3), *fitted, 1.0, board)
    cells = promise.cells([low + 1 for low, _ in job.BOUNDS])
    expected = board.costs(space.graph(space.of(cells)))["energy"].value
    assert promise.costs(cells)["energy"] == pytest.approx(expected, rel=0.02)
    assert promise.excess(cells) == pytest.approx(1e3 * expected - 1, rel=0.05)
