"""Two inputs, and two targets, designed to the end: searched, trained, exported with all of them, measured, asked."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from PIL import Image

import edgewright
from edgewright.core.cost import Budget
from edgewright.core.errors import BadInput, GateFailed
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.tensors import sides
from edgewright.export.deploy import held_out_samples
from edgewright.export.meaning import Known
from edgewright.export.parity import verify
from edgewright.export.ship.ship import ship
from edgewright.job.design import train
from edgewright.job.design.run import resume
from edgewright.task.load import load_task

OPTIONS = {"budget": Budget(macs=8e5), "candidates": 3, "finalists": 2, "epochs": 6, "workers": 1}


class Designed(NamedTuple):
    """A run.   data: as a task is named."""

    data: str
    out: Path
    result: Result


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


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> Designed:
    """Cut before its export; gone on with."""
    folder = tmp_path_factory.mktemp("inputs")
    data, out = f"arrays:{inputs_of(folder)}", folder / "run"

    def cut(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "deploy", cut)
        with pytest.raises(KeyboardInterrupt):
            edgewright.design(task=data, out=out, **OPTIONS)
    return Designed(data, out, resume(out))


@pytest.fixture(scope="module")
def two_targets(tmp_path_factory: pytest.TempPathFactory) -> Designed:
    folder = tmp_path_factory.mktemp("targets")
    data, out = f"arrays:{targets_of(folder)}", folder / "run"
    return Designed(data, out, edgewright.design(task=data, out=out, **OPTIONS))


@pytest.fixture(params=["two_inputs", "two_targets"])
def either(request: pytest.FixtureRequest) -> Designed:
    return request.getfixturevalue(request.param)


def test_two_inputs(two_inputs: Designed) -> None:
    """Neither input alone tells more than two of the four classes apart."""
    data, out, result = two_inputs
    assert result.metrics.test["accuracy"] > 75
    assert result.costs["macs"].value <= 8e5
    graph = onnx.load(RunFolder(out).onnx).graph
    shapes = {one.name: tuple(d.dim_value for d in one.type.tensor_type.shape.dim) for one in graph.input}
    assert shapes == {"image": (1, 3, 16, 12), "depth": (1, 5)}
    assert [one.max_relative_difference < 1e-3 for one in result.export.outputs] == [True]
    report = edgewright.bench(out, runs=200)
    assert not report.broken and report.costs["macs"] == result.costs["macs"]
    told = edgewright.predict(out, [data])  # its test part
    right = np.mean([int(one["class"]) == label for one, label in zip(told, seen(120, 4)[2], strict=True)])
    assert 100 * right == pytest.approx(result.metrics.test["accuracy"])
    model = edgewright.load_model(out)
    assert sum(p.numel() for p in model.parameters()) >= result.costs["params"].value * 0.9


def test_two_targets(two_targets: Designed) -> None:
    """Two heads of other widths, each learned and each held against the file; the mean of both decides."""
    data, out, result = two_targets
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
    told = edgewright.predict(out, [data])
    spots = np.mean([int(one["spot"]["class"]) == label % 2 for one, label in zip(told, seen(120, 4)[2], strict=True)])
    assert 100 * spots == pytest.approx(found["spot.accuracy"])
    page = (out / "report.html").read_text()
    assert "spot: " in page and "red: " in page


def test_a_file_is_refused_for_any_output_or_input(either: Designed, tmp_path: Path) -> None:
    """Altered by what is added to one output alone, or by how one input alone is read."""
    data, out, result = either
    task, path, altered = load_task(data), RunFolder(out).onnx, tmp_path / "altered.onnx"
    samples = held_out_samples(task, sides(result.architecture["resolution"]))
    layers = {node.output[0]: node for node in onnx.load(path).graph.node}
    readers = [
        node for node in layers.values() for name in node.input if name in {one.name for one in task.spec.inputs}
    ]
    changes = [(layers[one.name].input[2], f"output '{one.name}'") for one in result.export.outputs]
    changes += [(node.input[1], "differs") for node in readers if node.op_type in ("Conv", "Gemm")]
    verify(edgewright.load_model(out), path, samples, Known(task.kind))
    for name, words in changes:
        file = onnx.load(path)
        tensor = next(one for one in file.graph.initializer if one.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(0.1), name))
        onnx.save(file, altered)
        with pytest.raises(GateFailed, match=words):
            verify(edgewright.load_model(out), altered, samples, Known(task.kind))


def test_a_type_is_chosen_by_every_output(either: Designed, tmp_path: Path) -> None:
    """On the run's own data, and on the same file handed over, which is read as design reads it: its test part."""
    data, out, result = either
    for given, figures in ((None, result.metrics.val), (data, result.metrics.test)):
        shipped = ship(out, data=given, runtimes=["onnxruntime"], kinds=["fp32"], out=tmp_path / "out")
        (row,) = shipped.summary()["candidates"]
        assert [one["name"] for one in row["outputs"]] == [one.name for one in result.export.outputs]
        assert shipped.choice.winner is not None and shipped.choice.winner.gate is not None
        assert shipped.choice.winner.gate.accuracy == pytest.approx(figures[result.metrics.decides])


def test_every_output_of_a_block_is_told(two_targets: Designed) -> None:
    last = two_targets.result.blocks[-1]
    assert [last.output_shape, *last.more_outputs] == [(2,), (3,)]
    assert "2 classes and 3 classes" in RunFolder(two_targets.out).report.read_text()


def test_what_cannot_be_done_with_several_says_so(either: Designed, two_inputs: Designed, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="with more than one input and one output it cannot be compressed so far"):
        edgewright.compress_run(either.out, budget=Budget(macs=1e5), out=tmp_path / "small")
    with pytest.raises(BadInput, match="the inputs are image and depth, and only networks of one input"):
        edgewright.adapt(two_inputs.out, task=two_inputs.data, memory_mb=0.2, out=tmp_path / "adapted")
    Image.new("RGB", (16, 12)).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"takes image, depth: image files alone cannot be read.*give arrays:"):
        edgewright.predict(two_inputs.out, [tmp_path / "a.png"])
