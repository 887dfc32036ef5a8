"""What is calibrated and compared on: inputs as the network takes them, labels in its order, nothing shared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.core.progress import set_quiet
from edgewright.export.choose.samples import read_samples
from edgewright.export.meaning import Known
from edgewright.export.onnx import export_onnx
from edgewright.export.ship.source import Source, read_source
from edgewright.task.base import normalise
from edgewright.task.load import load_task


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A network of three outputs that takes (1, 3, 8, 8)."""
    path = tmp_path_factory.mktemp("square") / "model.onnx"
    with torch.random.fork_rng():
        export_onnx(nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten()), (3, 8, 8), path)
    return read_source(path)


def folder(place: Path, classes=("ant", "bee", "cat"), count: int = 5) -> str:
    """Images of one colour a class: 10, 20, 30, ... in red."""
    for label, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (8, 8), (10 * label + 10, index, 200)).save(place / name / f"{index}.png")
    return f"images:{place}"


def values(samples) -> list[tuple[float, ...]]:
    return [tuple(array[0, :, 0, 0].round(4)) for (array,) in (*samples.calibration, *samples.comparison)]


def test_images_are_scaled_and_labelled(square: Source, tmp_path: Path) -> None:
    samples = read_samples(square, folder(tmp_path), mean=(0.5, 0.25, 0), std=(0.1, 0.2, 1))
    assert (len(samples.calibration), len(samples.comparison)) == (3, 12)
    for (array,), label in zip(samples.comparison, samples.targets.tolist(), strict=True):
        assert array.shape == (1, 3, 8, 8) and array.dtype == np.float32
        assert array[0, 0, 3, 3] == pytest.approx(((10 * label + 10) / 255 - 0.5) / 0.1, abs=1e-4)
        assert array[0, 2, 0, 0] == pytest.approx(200 / 255, abs=1e-5)
    assert len(set(values(samples))) == 15  # no image twice


def test_imagenets_scale_is_the_default_and_said(square: Source, tmp_path: Path, capsys) -> None:
    set_quiet(False)
    samples = read_samples(square, folder(tmp_path))
    assert "ImageNet" in capsys.readouterr().err
    assert samples.comparison[0][0][0, 2, 0, 0] == pytest.approx((200 / 255 - 0.406) / 0.225, abs=1e-4)


def test_the_seed_decides_who_calibrates(square: Source, tmp_path: Path) -> None:
    data, scale = folder(tmp_path), {"mean": (0, 0, 0), "std": (1, 1, 1)}
    one, same, other = (read_samples(square, data, seed=seed, **scale) for seed in (0, 0, 1))
    assert values(one) == values(same)
    assert values(one) != values(other)
    assert sorted(values(one)) == sorted(values(other))


def test_folders_that_are_no_classes_of_the_network_give_no_labels(square: Source, tmp_path: Path) -> None:
    assert read_samples(square, folder(tmp_path / "a", ("x", "y"))).targets is None
    loose = tmp_path / "loose"
    loose.mkdir()
    for index in range(4):
        Image.new("RGB", (9, 12), (index, 0, 0)).save(loose / f"{index}.png")
    samples = read_samples(square, f"images:{loose}")
    assert samples.targets is None
    assert (len(samples.calibration), len(samples.comparison)) == (1, 3)


def test_arrays_are_taken_as_they_are(square: Source, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((20, 3, 8, 8))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 3)
    samples = read_samples(square, f"arrays:{tmp_path / 'a.npz'}")
    assert (len(samples.calibration), len(samples.comparison)) == (4, 16)
    for (array,), label in zip(samples.comparison, samples.targets.tolist(), strict=True):
        (row,) = (index for index in range(20) if (x[index].astype(np.float32) == array[0]).all())
        assert row % 3 == label
    assert len(samples.calibration[:2]) == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((0, 3, 8, 8))}, "x is empty"),
        ({"x": np.zeros((9, 3, 8, 7))}, r"x has shape \(9, 3, 8, 7\); the network takes \(N, 3, 8, 8\)"),
        ({"x": np.zeros((9, 3, 8, 8)), "y": np.zeros(8, dtype=int)}, "9 samples and y 8"),
        ({"x": np.zeros((9, 3, 8, 8), dtype=np.uint8)}, r"must be floats.*\(it is uint8\)"),
        ({"x": np.full((9, 3, 8, 8), np.nan)}, "not finite"),
        ({"z": np.zeros(3)}, "no array x"),
    ],
)
def test_arrays_that_do_not_fit(square: Source, tmp_path: Path, arrays, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadInput, match=message):
        read_samples(square, f"arrays:{tmp_path / 'a.npz'}")


def test_folders_that_do_not_serve(square: Source, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        read_samples(square, f"images:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no images"):
        read_samples(square, f"images:{tmp_path / 'empty'}")
    with pytest.raises(BadInput, match="unknown data 'movies:x': give 'digits', 'images:DIR'"):
        read_samples(square, "movies:x")
    with pytest.raises(BadInput, match="--data images:DIR"):
        read_samples(square, None)
    with pytest.raises(BadInput, match="--mean and --std need 3 numbers"):
        read_samples(square, folder(tmp_path / "f"), mean=(0.5,), std=(0.5,))


def test_oblong_images_come_as_oblong_as_the_network_takes_them(network_path: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    for index in range(4):
        Image.fromarray(np.roll(pixels, index, 1)).save(tmp_path / f"{index}.png")
    samples = read_samples(read_source(network_path), f"images:{tmp_path}", mean=(0, 0, 0), std=(1, 1, 1))
    found = {array.tobytes() for (array,) in (*samples.calibration, *samples.comparison)}
    whole = [np.roll(pixels, index, 1).transpose(2, 0, 1)[None] / np.float32(255) for index in range(4)]
    assert found == {array.astype(np.float32).tobytes() for array in whole}
    assert samples.spec is not None and samples.spec.size == (12, 20)


def test_a_network_that_takes_no_images(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        export_onnx(nn.Sequential(nn.Flatten(), nn.Linear(10, 3)), (10,), tmp_path / "table.onnx")
    with pytest.raises(BadInput, match="takes inputs of shape 1,10, not images; give --data arrays"):
        read_samples(read_source(tmp_path / "table.onnx"), folder(tmp_path / "images"))


def test_a_known_task_judges_by_its_own_metric(digits_run, tmp_path: Path) -> None:
    """A file of ours is judged as its task says, whatever data is given, and takes no label that it does not know."""
    source = read_source(digits_run.onnx)
    assert source.spec is not None
    source = replace(source, spec=source.spec.model_copy(update={"metric": "balanced_accuracy"}))
    x = np.random.default_rng(0).standard_normal((20, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 3)
    meaning = read_samples(source, f"arrays:{tmp_path / 'a.npz'}").meaning
    assert isinstance(meaning, Known) and meaning.metric is not None and meaning.metric.name == "balanced_accuracy"
    np.savez(tmp_path / "b.npz", x=x)
    meaning = read_samples(source, f"arrays:{tmp_path / 'b.npz'}").meaning
    assert isinstance(meaning, Known) and meaning.metric is None
    np.savez(tmp_path / "c.npz", x=x, y=np.arange(20))
    with pytest.raises(BadInput, match="there is the label 19, and the network knows 10; labels count from 0"):
        read_samples(source, f"arrays:{tmp_path / 'c.npz'}")


def test_the_file_that_was_designed_for_serves_the_network(digits_run, tmp_path: Path) -> None:
    """The parts and the units of `design --task arrays:FILE`, whatever the classes are called and in which order."""
    task, source = load_task("digits"), read_source(digits_run.path)
    x, y = task.test.inputs, task.test.targets.numpy()
    names = np.array([str(9 - label) for label in range(10)])
    parts = {"x_train": x[:40], "y_train": y[:40], "x_test": x[40:90], "y_test": 9 - y[40:90]}
    np.savez(tmp_path / "a.npz", **{key: np.asarray(part) for key, part in parts.items()})
    np.savez(tmp_path / "named.npz", classes=names, **{key: np.asarray(part) for key, part in parts.items()})
    inputs = normalise(x, task.spec, source.shape[-2:]).numpy()
    for name, right in (("a", 9 - y), ("named", y)):
        samples = read_samples(source, f"arrays:{tmp_path / name}.npz")
        assert (len(samples.calibration), len(samples.comparison)) == (40, 50)
        assert {array.tobytes() for (array,) in samples.calibration} == {one.tobytes() for one in inputs[:40]}
        where = {inputs[row].tobytes(): row for row in range(40, 90)}
        rows = [where[array.tobytes()] for (array,) in samples.comparison]
        assert samples.targets.tolist() == right[rows].tolist()
    np.savez(tmp_path / "x.npz", x=np.asarray(x[:20, 0]))
    samples = read_samples(source, f"arrays:{tmp_path / 'x.npz'}")
    assert (len(samples.calibration), len(samples.comparison), samples.targets) == (4, 16, None)
    np.savez(tmp_path / "b.npz", x=np.zeros((9, 8, 8, 3), np.uint8))
    with pytest.raises(BadInput, match=r"holds input \(3, 8, 8\); the network's task takes input \(1, 8, 8\)"):
        read_samples(source, f"arrays:{tmp_path / 'b.npz'}")


def test_bytes_are_scaled_as_the_same_images_are(square: Source, tmp_path: Path) -> None:
    """For a network of which nobody knows the task; channels last, as design takes them too."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    for part, count in (("train", 6), ("test", 4)):
        for index in range(count):
            place = tmp_path / "set" / part / "abc"[index % 3]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[index + 6 * (part == "test")]).save(place / f"{index}.png")
    y = np.arange(6) % 3
    np.savez(tmp_path / "a.npz", x_train=pixels[:6], y_train=y, x_test=pixels[6:], y_test=y[:4])
    scale = {"mean": (0.5, 0.25, 0), "std": (0.1, 0.2, 1)}
    images = read_samples(square, f"images:{tmp_path / 'set'}", **scale)
    arrays = read_samples(square, f"arrays:{tmp_path / 'a.npz'}", **scale)
    for one, other in ((images.calibration, arrays.calibration), (images.comparison, arrays.comparison)):
        assert {array.tobytes() for (array,) in one} == {array.tobytes() for (array,) in other}
        assert len(one) == (6 if one is images.calibration else 4)
    assert sorted(images.targets.tolist()) == sorted(arrays.targets.tolist()) == [0, 0, 1, 2]
    with pytest.raises(BadInput, match=r"x_train must be floats.*\(it is uint8\); for bytes .* give --mean and --std"):
        read_samples(square, f"arrays:{tmp_path / 'a.npz'}")


def test_a_run_brings_its_own_and_its_test_part_is_not_touched(digits_run) -> None:
    source = read_source(digits_run.path)
    samples = read_samples(source, None)
    task, size = load_task("digits"), source.shape[-2:]

    def keys(split) -> dict[bytes, int]:
        inputs = normalise(split.inputs, task.spec, size).numpy()
        return {image.tobytes(): int(label) for image, label in zip(inputs, split.targets, strict=True)}

    train, val = keys(task.train), keys(task.val)
    assert all(array.tobytes() in train for (array,) in samples.calibration)
    assert len(samples.comparison) == len(task.val)
    for (array,), label in zip(samples.comparison, samples.targets.tolist(), strict=True):
        assert val[array.tobytes()] == label


def test_a_files_own_task_says_scale_and_classes(digits_run, tmp_path: Path) -> None:
    source = read_source(digits_run.onnx)  # the file alone, without its run
    assert source.spec is not None and source.run is None
    for name in ("7", "3"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("L", (8, 8), 100 + index).save(tmp_path / name / f"{index}.png")
    samples = read_samples(source, f"images:{tmp_path}")
    assert set(samples.targets.tolist()) <= {3, 7}
    (tmp_path / "7").rename(tmp_path / "seven")
    with pytest.raises(BadInput, match="no class 'seven'"):
        read_samples(source, f"images:{tmp_path}")
    assert isinstance(source.model, onnx.ModelProto)
