"""Segmentation through the whole way: designed, exported, measured, reported, asked, on small oblong maps."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import edgewright
from edgewright.core.cost import Budget
from edgewright.core.run import RunFolder
from edgewright.export.ship.ship import ship
from edgewright.task.load import load_task
from edgewright.train.evaluate import evaluate

HEIGHT, WIDTH = 24, 32


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright discs on dark noise, of which one pixel in fifty counts for nothing."""
    folder, rng = tmp_path_factory.mktemp("discs"), np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(80):
        y, x, radius = rng.integers(6, 18), rng.integers(6, 26), rng.integers(3, 7)
        mask = ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2).astype(np.uint8)
        pixels = (rng.normal(60, 20, mask.shape) + 110 * mask).clip(0, 255).astype(np.uint8)
        mask[rng.random(mask.shape) < 0.02] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def designed(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "discs"
    edgewright.design(
        task=f"segment:{discs}", budget=Budget(macs=2e6), candidates=6, finalists=2, epochs=8, out=out, workers=1
    )
    return RunFolder(out)


def test_it_learns_and_keeps_its_budget(designed: RunFolder) -> None:
    result = designed.read_result()
    assert result.metrics.decides == "mean_iou" and {*result.metrics.test} == {
        "mean_iou", "pixel_accuracy", "mean_dice"
    }  # fmt: skip
    assert result.metrics.on_test > 70  # who says background everywhere has 45
    assert result.costs["macs"].value <= 2e6
    assert [one.name for one in result.export.outputs] == ["logits"]
    assert result.export.outputs[0].max_relative_difference < 1e-3


def test_the_figure_is_that_of_the_file(designed: RunFolder, discs: Path) -> None:
    """Through the file, place by place and pixel by pixel, with numpy."""
    task, session = load_task(f"segment:{discs}"), edgewright_session(designed.onnx)
    (mean,), (std,) = task.spec.input.mean, task.spec.input.std
    right, said_, true_ = np.zeros(2), np.zeros(2), np.zeros(2)
    for image, mask in zip(task.test.inputs, task.test.targets.numpy(), strict=True):
        (logits,) = session.run(None, {"input": ((image.numpy()[None] - mean) / std).astype(np.float32)})
        places = logits[0].argmax(0)
        assert HEIGHT % places.shape[0] == 0 and WIDTH % places.shape[1] == 0
        said = places.repeat(HEIGHT // places.shape[0], 0).repeat(WIDTH // places.shape[1], 1)
        counts = mask != 255
        for number in range(2):
            right[number] += ((said == number) & (mask == number))[counts].sum()
            said_[number] += (said == number)[counts].sum()
            true_[number] += (mask == number)[counts].sum()
    expected = 100 * (right / (said_ + true_ - right)).mean()
    assert designed.read_result().metrics.on_test == pytest.approx(expected, abs=0.1)
    model = edgewright.load_model(designed.path)
    assert evaluate(model, task.test, task.spec, (HEIGHT, WIDTH)).score.value == pytest.approx(expected, abs=0.1)


def edgewright_session(path: Path):
    import onnxruntime

    assert onnx.load(path).graph.input[0].name == "input"
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_bench_measures_it(designed: RunFolder) -> None:
    report = edgewright.bench(designed.path, runs=50)
    assert not report.broken and report.costs["macs"] == designed.read_result().costs["macs"]


def test_predict_writes_masks_of_the_images_own_size(designed: RunFolder, discs: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with Image.open(discs / "images" / "00.png") as image:
        image.resize((3 * WIDTH, 2 * HEIGHT)).save(large)
    asked = [discs / "images" / "00.png", discs / "images" / "01.png", large]
    told = edgewright.predict(designed.path, asked, out=tmp_path / "masks")
    assert [Path(one["file"]).name for one in told] == ["00.png", "01.png", "large.png"]
    for one, path in zip(told, asked, strict=True):
        with Image.open(one["mask"]) as mask, Image.open(path) as image:
            assert mask.size == image.size
            numbers = np.asarray(mask)
        assert one["percent"]["foreground"] == pytest.approx(100 * (numbers == 1).mean(), abs=1e-3)
    with Image.open(discs / "masks" / "00.png") as true, Image.open(told[0]["mask"]) as mask:
        known = np.asarray(true) != 255
        assert (np.asarray(true) == np.asarray(mask))[known].mean() > 0.9


def test_a_type_is_chosen_on_masks_that_are_handed_over(designed: RunFolder, discs: Path, tmp_path: Path) -> None:
    """Of images alone nobody knows the answers."""
    for data, known in ((f"segment:{discs}", True), (f"images:{discs / 'images'}", False)):
        shipped = ship(designed.path, data=data, runtimes=["onnxruntime"], kinds=["fp32"], out=tmp_path / "out")
        assert shipped.choice.winner is not None and shipped.choice.winner.gate is not None
        decides = shipped.choice.winner.gate.decides
        assert (decides is not None) == known
        assert decides is None or (decides.source.name == "mean_iou" and decides.source.value > 70)


def test_the_report_shows_masks(designed: RunFolder) -> None:
    page = designed.report.read_text()
    assert "Where it is furthest off" in page and "mean IoU" in page and "data:image/png" in page
    assert "accuracy" not in json.dumps(designed.read_result().metrics.model_dump()).replace("pixel_accuracy", "")


def test_a_network_of_masks_is_adapted_and_shrunk(designed: RunFolder, discs: Path, tmp_path: Path) -> None:
    """Inverted images; then half of the multiply-adds."""
    for name in ("images", "masks"):
        (tmp_path / "inverted" / name).mkdir(parents=True)
    for path in sorted((discs / "images").iterdir()):
        with Image.open(path) as image:
            Image.fromarray(255 - np.asarray(image)).save(tmp_path / "inverted" / "images" / path.name)
        (tmp_path / "inverted" / "masks" / path.name).write_bytes((discs / "masks" / path.name).read_bytes())
    found = edgewright.adapt(designed.path, task=f"segment:{tmp_path / 'inverted'}", out=tmp_path / "mine", epochs=2)
    assert found.figure.after > found.figure.before
    macs = 0.7 * designed.read_result().costs["macs"].value
    small = edgewright.compress_run(
        designed.path, out=tmp_path / "small", macs=macs, max_drop=40.0, epochs=1, steps=("prune",)
    )
    assert small.after.costs["macs"].value <= macs
    model = edgewright.load_model(tmp_path / "small")
    assert model(torch.zeros(1, 1, HEIGHT, WIDTH)).shape[1] == 2
