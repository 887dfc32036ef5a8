import json
import shutil

import pytest

from edgewright.core.data import read_json
from edgewright.core.errors import BadInput
from edgewright.export.bench import bench


def test_bench_measures_the_file(made_run):
    report = bench(made_run, runs=200)
    assert report.broken == []
    assert report.costs["size"].value == (made_run / "model.onnx").stat().st_size
    latency = report.costs["latency"]
    assert 0 < latency.minimum <= latency.value == latency.p50 <= latency.p90 <= latency.p99
    assert report.noise.runs >= 200
    assert report.same_machine
    assert report.recorded["latency"].value == 0.4
    assert "budget: met" in report.text()
    assert json.loads(report.to_json())["broken"] == []


def test_a_broken_ceiling_is_said(made_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(made_run, copy)
    data = read_json(copy / "result.json")
    data["budget"]["latency_ms"] = 1e-4
    (copy / "result.json").write_text(json.dumps(data))
    report = bench(copy, runs=200)
    assert len(report.broken) == 1
    assert report.broken[0].startswith("latency is")
    assert "times the ceiling" in report.text()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match="not a run folder"):
        bench(tmp_path)
