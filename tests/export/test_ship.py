"""What is written: the winner's file, whole, with its evidence; nothing where something fails."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgewright.core.errors import BadInput, MissingExtra
from edgewright.core.files import sha256
from edgewright.export.choose import choice as choosing
from edgewright.export.choose.choice import NothingFits
from edgewright.export.choose.versus import versus
from edgewright.export.ship.ship import ship


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "RUNS", 20)
    monkeypatch.setattr(choosing, "FEWEST_RUNS", 20)


def test_a_run_ships_the_fastest_file(digits_run, tmp_path: Path) -> None:
    shipped = ship(digits_run.path, runtimes=["onnxruntime"], out=tmp_path / "out")
    summary = shipped.summary()
    assert list(summary) == ["winner", "candidates"]
    assert list(summary["winner"]) == ["runtime", "type", "latency_ms", "file"]
    file = Path(summary["winner"]["file"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {file.name, "choice.json", "MODEL_CARD.md"}
    record = json.loads(shipped.record.read_text())
    assert record["files"] == {file.name: sha256(file)}
    assert record["source_sha256"] == sha256(digits_run.onnx)
    assert record["samples"]["comparison"] > 50
    assert record["why"] == shipped.choice.why
    # The file itself says what it came from, and still says what task it learned.
    texts = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(texts["edgewright.export"])["source_sha256"] == record["source_sha256"]
    assert "task" in texts
    accuracy = next(row["metric"] for row in summary["candidates"] if row["type"] == "fp32")
    assert accuracy > 80


def test_the_default_place_is_inside_the_run(digits_run) -> None:
    shipped = ship(digits_run.path, runtimes=["onnxruntime"], kinds=["fp32"])
    assert shipped.file == digits_run.path / "export" / "model-onnxruntime-fp32.onnx"
    assert versus([digits_run.path, shipped.file], runs=20).rows[1].runtime == "onnxruntime"


def test_an_onnx_file_with_arrays(network_path: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((40, 3, 12, 20), dtype=np.float32)
    np.savez(tmp_path / "a.npz", x=x)
    shipped = ship(network_path, data=f"arrays:{tmp_path / 'a.npz'}", runtimes=["onnxruntime"], out=tmp_path / "o")
    rows = shipped.summary()["candidates"]
    assert rows[0]["metric"] is None and rows[0]["top1_agreement"] is None  # its largest is always the same one
    assert rows[0]["outputs"] == [{"name": "logits", "max_relative_difference": 0, "same": 100}]


def test_nothing_is_written_where_nothing_fits(digits_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewright.device.compare import Ratio

    monkeypatch.setattr(Ratio, "surely_faster", property(lambda self: False))
    with pytest.raises(NothingFits, match="onnxruntime int8: not surely faster"):
        ship(digits_run.path, runtimes=["onnxruntime"], kinds=["int8"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_words(digits_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewright.export.runtimes.openvino_adapter import OpenVino

    out = tmp_path / "out"
    with pytest.raises(BadInput, match="unknown type 'fp8'; choose from fp32, bf16, int8"):
        ship(digits_run.path, kinds=["fp8"], out=out)
    with pytest.raises(BadInput, match="unknown device 'toaster'"):
        ship(digits_run.path, device="toaster", out=out)
    monkeypatch.setattr(OpenVino, "installed", lambda self: False)
    with pytest.raises(MissingExtra, match=r"pip install 'edgewright\[openvino\]'"):
        ship(digits_run.path, runtimes=["openvino"], out=out)
    assert not out.exists()


def test_measuring_many(network_path: Path, tmp_path: Path) -> None:
    found = versus([network_path, f"onnxruntime:{network_path}"], runs=25)
    assert found.runs == 30 and [row.ratio.value > 0 for row in found.rows] == [True, True]
    assert found.rows[0].ratio.low == found.rows[0].ratio.high == 1
    assert found.rows[1].ratio.low <= found.rows[1].ratio.value <= found.rows[1].ratio.high
    assert str(network_path) in found.text()
    for places, message in (
        ([], "at least one file"),
        ([tmp_path / "no.onnx"], "no such file"),
        ([tmp_path / "no.txt"], "no runtime opens files with this ending"),
    ):
        with pytest.raises(BadInput, match=message):
            versus(places)
    with pytest.raises(BadInput, match="20 runs are needed"):
        versus([network_path], runs=3)
