"""Where a run may begin and go on, as far as it takes no search to tell."""

from types import SimpleNamespace

import pytest

from edgewright.core.cost import Budget
from edgewright.core.errors import BadInput
from edgewright.core.plan import Plan
from edgewright.core.run import RunFolder
from edgewright.device.resolve import make_device
from edgewright.device.table.table import LatencyModel
from edgewright.job.design import run as job
from edgewright.job.design.ground import survey


def test_a_run_that_began_in_the_folder_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")

    def another_begins(*_):
        folder.path.mkdir()
        folder.plan.write_text("the other's")
        return SimpleNamespace(plan=None, task=SimpleNamespace(spec=SimpleNamespace(digest="")))

    monkeypatch.setattr(job, "survey", another_begins)
    with pytest.raises(BadInput, match="holds another run"):
        job.run(Plan(task="digits", budget=Budget(macs=1e6)), folder.path)
    assert folder.plan.read_text() == "the other's"


def test_a_run_with_a_latency_ceiling_does_not_go_on_on_another_device():
    device = {**make_device("cpu").identity(), "cpu": "another processor"}
    elsewhere = LatencyModel.model_construct(device=device)
    with pytest.raises(BadInput, match="begun on another device \\(cpu another processor"):
        survey(Plan(task="digits", budget=Budget(latency_ms=1)), latency=elsewhere)
