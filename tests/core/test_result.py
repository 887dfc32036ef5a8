"""result.json: what is written is read, and what version 0.1 wrote means the same."""

import json
from pathlib import Path

import pytest

from edgewright.core.errors import BadInput
from edgewright.core.result import Export, Finalist, Metrics, OutputDifference, Result
from edgewright.task.base import TaskSpec

FINALIST = {"key": "a", "predicted_ms": 1.0, "measured_ms": 1.5, "score": 3.0, "rung": 0}


def test_metrics_of_version_0_1_are_accuracies():
    old = Metrics.parse({"test_accuracy": 93.5, "val_accuracy": 95.0}, "x")
    assert old == Metrics(decides="accuracy", test={"accuracy": 93.5}, val={"accuracy": 95.0})
    assert (old.on_test, old.on_val) == (93.5, 95.0)


def test_the_figure_that_decides_is_looked_up_by_its_name():
    found = Metrics(decides="mean_iou", test={"pixels": 90, "mean_iou": 60}, val={"pixels": 91, "mean_iou": 61})
    assert (found.on_test, found.on_val) == (60, 61)
    assert Metrics.parse(found.model_dump(mode="json"), "x") == found


def test_an_export_of_version_0_1_had_one_output_and_a_share():
    data = {"max_abs_difference": 2e-6, "top1_agreement": 0.995, "samples": 200, "cosine": 0.99, "batch": 8}
    only = OutputDifference(name="logits", max_relative_difference=None, max_abs_difference=2e-6)
    assert Export.parse(data, "x") == Export(outputs=(only,), same=99.5, samples=200, batch=8)
    assert Export.parse({"max_abs_difference": 0, "top1_agreement": 1, "samples": 3}, "x").batch is None


@pytest.mark.parametrize("name", ["val", "val_accuracy"])
def test_a_finalist_is_read_by_either_name(name):
    assert Finalist.parse({**FINALIST, name: 88.5}, "x").val == 88.5
    assert Finalist.parse(FINALIST, "x").val is None


def test_runs_of_version_0_1_read_as_they_were(shared_data: Path) -> None:
    places = sorted((shared_data / "old_runs").glob("*/result.json"))
    assert places
    for place in places:
        old = json.loads(place.read_text())
        found = Result.parse(old, str(place))
        assert found.schema_version == 2
        assert (found.key, found.seed, found.files) == (old["key"], old["seed"], old["files"])
        assert found.metrics.test == {"accuracy": old["metrics"]["test_accuracy"]}
        assert found.metrics.val == {"accuracy": old["metrics"]["val_accuracy"]}
        assert found.export.same == 100 * old["export"]["top1_agreement"]
        assert [one.max_abs_difference for one in found.export.outputs] == [old["export"]["max_abs_difference"]]
        assert [one.val for one in found.finalists] == [one["val_accuracy"] for one in old["finalists"]]
        assert {name: one.value for name, one in found.costs.items()} == {
            name: one["value"] for name, one in old["costs"].items()
        }
        task = TaskSpec.parse(found.task, str(place))
        assert list(task.names) == old["classes"] and task.kind == "classification"
        assert task.size == (old["task"]["resolution"],) * 2
        assert list(task.input.mean) == old["task"]["mean"] and task.input.white == old["task"]["white"]
        again = Result.parse(json.loads(found.to_json()), "again")
        assert again == found
        assert TaskSpec.parse(again.task, "again") == task


def test_a_schema_that_is_not_known_is_refused(shared_data: Path) -> None:
    data = json.loads((shared_data / "old_runs" / "digits" / "result.json").read_text())
    with pytest.raises(BadInput):
        Result.parse({**data, "schema": 3}, "x")
