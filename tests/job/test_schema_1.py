"""What adapt and compress wrote under schema 1 is still read: by --resume of a finished run, and for its report."""

import json
import re
import shutil
from pathlib import Path

import pytest

from edgewright.core.errors import BadInput
from edgewright.core.metric import Score
from edgewright.job.adapt import run as adapting
from edgewright.job.adapt.plan import AdaptPlan
from edgewright.job.adapt.run import AdaptResult, BeforeAfter
from edgewright.job.compress import run as compressing
from edgewright.job.compress.plan import CompressPlan
from edgewright.job.compress.result import CompressResult
from edgewright.report.parts.adaptation import write_adaptation
from edgewright.report.parts.compression import write_compression

OLD = Path(__file__).parent / "schema_1"  # by hand, small, with every field that version 0.1 had


def finished(name: str, plan: str, folder: Path) -> Path:
    """A folder that is finished, as far as it is read when it is gone on with."""
    folder.mkdir()
    shutil.copy(OLD / name, folder)
    (folder / name.replace("compressed", "compress").replace(".json", "_plan.json")).write_text(plan)
    (folder / "report.html").write_text("as it was")
    return folder


def test_an_adaptation(tmp_path: Path) -> None:
    plan = AdaptPlan(source="flowers", task="arrays:inv.npz", minutes=1.0)
    result = adapting.resume(finished("adapt.json", plan.to_json(), tmp_path / "mine"))
    assert result.figure == BeforeAfter(name="accuracy", unit="%", before=22.5, after=75.0)
    assert result.val == result.tuned.val == Score(name="accuracy", value=84.25)
    assert result.old_task is not None and (result.old_task.before, result.old_task.after) == (99.0, 85.5)
    first, last = result.tuned.history
    assert (first.train_loss, first.progress, last.train_loss) == (None, None, 1.25)
    assert last.val == result.val and result.tuned.samples_per_second is None
    assert (result.export.same, result.export.outputs[0].max_abs_difference) == (97.5, 3.5e-6)
    page = write_adaptation(tmp_path / "report.html", result).read_text()
    assert "22.5 % before" in page and ">75.0 %<" in page


def test_a_compression(tmp_path: Path) -> None:
    plan = CompressPlan.model_validate({"source": "flowers", "budget": {"latency_ms": 0.1}})
    result = compressing.resume(finished("compressed.json", plan.to_json(), tmp_path / "small"))
    assert (result.before.test, result.before.val, result.after.test, result.after.val) == (92.5, 95.0, 90.0, 94.0)
    assert [trial.figure for trial in result.trials] == [95.0, None, 94.0]
    (learned,) = result.learned
    assert [record.val and record.val.value for record in learned.trained.history] == [None, 94.0]
    assert (learned.trained.val.value, learned.trained.samples_per_second) == (94.0, 512.5)
    assert result.budget.ceilings() == {"latency": 0.1}
    assert "92.5" in write_compression(tmp_path / "report.html", result).read_text()


@pytest.mark.parametrize(("kind", "name"), [(AdaptResult, "adapt.json"), (CompressResult, "compressed.json")])
def test_they_are_written_as_schema_2_and_what_is_newer_is_refused(kind: type, name: str) -> None:
    old = json.loads((OLD / name).read_text())
    read = kind.parse(old, name)
    assert not re.search(r'"(val_|test_)?accuracy":', read.to_json())
    written = json.loads(read.to_json())
    assert written["schema"] == 2
    assert kind.parse(written, name) == read
    with pytest.raises(BadInput, match=f"{name}: 'schema': Input should be 2 "):
        kind.parse(old | {"schema": 3}, name)
