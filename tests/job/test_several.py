"""Two inputs, and two targets, designed to the end: searched, trained, exported with all of them, measured, asked."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import edgewright
from edgewright.core.cost import Budget
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.job.design import train
from edgewright.job.design.run import resume

OPTIONS = {"budget": Budget(macs=8e5), "candidates": 3, "finalists": 2, "epochs": 6, "workers": 1}


def seen(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Oblong images that tell odd classes by a bright spot, vectors that tell the upper half of the classes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, count)
    image = rng.integers(0, 60, (count, 16, 12, 3)).astype(np.uint8)
    image[label % 2 == 1, 4:10, 3:9] += 120
    depth = rng.normal(0, 1, (count, 5)).astype(np.float32)
    depth[label // 2 == 1, :2] += 4
    return image, depth, label


def inputs_of(folder: Path) -> Path:
    path, arrays = folder / "in.npz", {}
    for part, count in (("train", 400), ("test", 120)):
        image, depth, label = seen(count, len(part))
        arrays |= {f"x_{part}.image": image, f"x_{part}.depth": depth, f"y_{part}": label}
    np.savez(path, **arrays)
    return path


def targets_of(folder: Path) -> Path:
    path, arrays = folder / "out.npz", {}
    for part, count in (("train", 400), ("test", 120)):
        image, _, label = seen(count, len(part))
        image[..., 0] += ((np.arange(count) % 3) * 60).astype(np.uint8)[:, None, None]  # redder and redder
        arrays |= {f"x_{part}": image, f"y_{part}.spot": label % 2, f"y_{part}.red": np.arange(count) % 3}
    np.savez(path, **arrays)
    return path


def test_two_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither input alone tells more than two of the four classes apart. Cut before its export; gone on with."""
    data, out = inputs_of(tmp_path), tmp_path / "run"

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "deploy", cut)
        with pytest.raises(KeyboardInterrupt):
            edgewright.design(task=f"arrays:{data}", out=out, **OPTIONS)
    result: Result = resume(out)
    assert result.metrics.test["accuracy"] > 75
    assert result.costs["macs"].value <= 8e5
    graph = onnx.load(RunFolder(out).onnx).graph
    shapes = {one.name: tuple(d.dim_value for d in one.type.tensor_type.shape.dim) for one in graph.input}
    assert shapes == {"image": (1, 3, 16, 12), "depth": (1, 5)}
    assert [one.max_relative_difference < 1e-3 for one in result.export.outputs] == [True]
    report = edgewright.bench(out, runs=200)
    assert not report.broken and report.costs["macs"] == result.costs["macs"]
    told = edgewright.predict(out, [f"arrays:{data}"])  # its test part
    right = np.mean([int(one["class"]) == label for one, label in zip(told, seen(120, 4)[2], strict=True)])
    assert 100 * right == pytest.approx(result.metrics.test["accuracy"])
    model = edgewright.load_model(out)
    assert sum(p.numel() for p in model.parameters()) >= result.costs["params"].value * 0.9


def test_two_targets(tmp_path: Path) -> None:
    """Two heads of other widths, each learned and each held against the file; the mean of both decides."""
    data, out = targets_of(tmp_path), tmp_path / "run"
    result = edgewright.design(task=f"arrays:{data}", out=out, **OPTIONS)
    found = result.metrics.test
    assert result.metrics.decides == "mean_score"
    assert found["mean_score"] == pytest.approx((found["spot.accuracy"] + found["red.accuracy"]) / 2)
    assert found["spot.accuracy"] > 75 and found["red.accuracy"] > 60
    assert [one.name for one in result.export.outputs] == ["spot.logits", "red.logits"]
    assert all(one.max_relative_difference < 1e-3 for one in result.export.outputs)
    graph = onnx.load(RunFolder(out).onnx).graph
    shapes = [tuple(d.dim_value for d in one.type.tensor_type.shape.dim) for one in graph.output]
    assert shapes == [(1, 2), (1, 3)]
    report = edgewright.bench(out, runs=200)
    assert not report.broken and report.costs["macs"] == result.costs["macs"]
    told = edgewright.predict(out, [f"arrays:{data}"])
    spots = np.mean([int(one["spot"]["class"]) == label % 2 for one, label in zip(told, seen(120, 4)[2], strict=True)])
    assert 100 * spots == pytest.approx(found["spot.accuracy"])
    page = (out / "report.html").read_text()
    assert "spot: " in page and "red: " in page
