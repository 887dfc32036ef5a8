"""What a network that is there is asked about: the same words, read as its task was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgewright.core.errors import BadInput
from edgewright.task.image_files import read_images
from edgewright.task.load import load_task, read_all_given, read_given
from made_images import folder_of, noise


def arrays(folder: Path, name: str = "F.npz", top: int = 256, **more: np.ndarray) -> str:
    random = np.random.default_rng(0)
    found = {
        f"x_{part}": random.integers(0, top, (count, 9, 12)).astype(np.uint8)
        for part, count in (("train", 20), ("test", 6))
    }
    found |= {f"y_{part}": np.arange(len(found[f"x_{part}"])) % 2 for part in ("train", "test")}
    np.savez(folder / name, **{**found, **more})
    return f"arrays:{folder / name}"


def test_arrays_give_their_test_part_or_x(tmp_path):
    source = arrays(tmp_path)
    task = load_task(source)
    given = read_given(source, task.spec)
    assert (given.files[3], given.stems[3], len(given)) == ("F.npz[3]", "F-3", 6)
    assert torch.equal(given.take(range(2, 5)), task.test.inputs[2:5])
    assert torch.equal(given.targets, task.test.targets)
    assert given.size(0) == (9, 12)
    assert len(read_given(source, task.spec, "train")) == 20
    assert len(read_given(source, task.spec, "val")) == 6  # there is none: the test part
    only = tmp_path / "only.npz"
    np.savez(only, x=np.arange(4 * 9 * 12).reshape(4, 9, 12) % 250)
    given = read_given(f"arrays:{only}", task.spec, "train")
    assert (len(given), given.targets) == (4, None)


def test_arrays_that_are_not_what_the_task_takes_are_refused(tmp_path):
    spec = load_task(arrays(tmp_path)).spec
    for x, words in [
        (
            np.zeros((3, 9, 12, 3), np.uint8),
            r"x: holds input \(3, 9, 12\); the network's task takes input \(1, 9, 12\)",
        ),
        (np.random.rand(3, 9, 12), "its numbers reach 0.99.*those that the network learned 255: give them in the same"),
        (np.full((3, 9, 12), 4000), "its numbers reach 4000"),
    ]:
        np.savez(tmp_path / "x.npz", x=x)
        with pytest.raises(BadInput, match=words):
            read_given(f"arrays:{tmp_path / 'x.npz'}", spec)
    np.savez(tmp_path / "y.npz", y=np.zeros(3))
    with pytest.raises(BadInput, match=r"y\.npz: x_test missing, and there is no x"):
        read_given(f"arrays:{tmp_path / 'y.npz'}", spec)


def test_folders_give_all_images_with_their_sub_folders_as_names(tmp_path):
    folder = folder_of(tmp_path / "set", count=5)
    task = load_task(f"images:{folder}")
    for text in (f"images:{folder}", str(folder)):
        given = read_given(text, task.spec)
        assert given.names == {"": ["cat", "dog"]}
        assert given.targets.tolist() == [0] * 5 + [1] * 5
        assert torch.equal(given.take([7, 0]), read_images([Path(given.files[7]), Path(given.files[0])], task.spec))
    noise(1, 30, 20).save(folder / "loose.png")
    assert read_given(f"images:{folder}", task.spec).targets is None
    folder_of(tmp_path / "parts" / "Train"), folder_of(tmp_path / "parts" / "Valid", count=2)
    assert len(read_given(f"images:{tmp_path / 'parts'}", task.spec, "val")) == 4
    assert len(read_given(f"images:{tmp_path / 'parts'}", task.spec)) == 20


def test_files_folders_and_sources_beside_each_other(tmp_path):
    source = arrays(tmp_path)
    spec = load_task(source).spec
    folder = folder_of(tmp_path / "set", count=2)
    noise(1, 30, 20).save(tmp_path / "one.png")
    found = read_all_given([str(tmp_path / "one.png"), str(folder / "cat"), source, str(folder / "dog")], spec)
    assert [len(given) for given in found] == [3, 6, 2]
    assert found[0].size(0) == (30, 20)
    with pytest.raises(BadInput, match="no images given"):
        read_all_given([], spec)


def test_the_embedded_digits():
    task = load_task("digits")
    given = read_given("digits", task.spec)
    assert (len(given), given.files[0]) == (task.spec.num_test, "digits[0]")
    assert torch.equal(given.take([5]), task.test.inputs[5:6])


@pytest.mark.parametrize("top", [2, 16, 17, 32, 64, 65, 128, 256])
def test_image_files_are_read_in_the_units_of_integer_arrays(tmp_path, top, capsys):
    """White is the least full scale that holds the training part's largest value."""
    task = load_task(arrays(tmp_path, top=top))
    white = {2: 1, 16: 15, 17: 16, 32: 31, 64: 63, 65: 64, 128: 127, 256: 255}[top]
    assert task.spec.input.white == white
    assert (f"so {white} is taken for white" in capsys.readouterr().err) == (white != 255)
    noise(3, 9, 12).save(tmp_path / "a.png")
    expected = np.asarray(noise(3, 9, 12).convert("L")) * (white / 255)
    np.testing.assert_allclose(read_images([tmp_path / "a.png"], task.spec)[0, 0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "shift", "white"),
    [(1.0, 0.0, 1), (255.0, 0.0, 0), (4095.0, 0.0, 0), (1.0, -0.5, 0)],
)
def test_floats_are_not_guessed_at(tmp_path, scale, shift, white):
    x = np.random.default_rng(0).random((20, 9, 12)) * scale + shift
    task = load_task(arrays(tmp_path, x_train=x, x_test=x[:6] * 0.9))
    assert task.spec.input.white == white


def test_whole_numbers_are_known_whatever_their_type(tmp_path):
    for top, kind, white in (
        (256, np.float32, 255),
        (17, np.float64, 16),
        (4096, np.uint16, 4095),
        (65536, np.int64, 65535),
    ):
        x = np.random.default_rng(0).integers(0, top, (20, 9, 12)).astype(kind)
        x[0, 0, 0] = top - 1
        assert load_task(arrays(tmp_path, x_train=x, x_test=x[:6] // 2)).spec.input.white == white


def test_integers_of_one_type_stay_of_one_type(tmp_path):
    """A test part that happens to be dark enough for bytes is no other data."""
    x = np.random.default_rng(0).integers(0, 1000, (20, 9, 12))
    task = load_task(arrays(tmp_path, x_train=x, x_test=x[:6] // 4))
    assert task.test.inputs.dtype == task.train.inputs.dtype == torch.float32
