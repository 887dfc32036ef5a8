"""Data that people came with: read wrongly without a word before, each here as they had it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from edgewright.core.errors import BadInput
from edgewright.task.base import Task
from edgewright.task.load import load_task
from made_images import folder_of, save_png_16


def total(task: Task) -> int:
    return task.spec.num_train + task.spec.num_val + task.spec.num_test


def test_other_endings_and_none(tmp_path, capsys):
    folder_of(tmp_path, count=20)
    for name in ("cat", "dog"):
        for index, ending in enumerate(["tif", "jfif", "heic", "avif", "JPE", ""] * 3):
            path = tmp_path / name / f"{index}.png"
            path.rename(path.with_suffix(f".{ending}" if ending else ""))
    assert total(load_task(f"images:{tmp_path}")) == 40
    assert capsys.readouterr().err == ""


def test_a_public_set_of_ppm(tmp_path):
    folder_of(tmp_path / "png", count=6)
    for path in (tmp_path / "png").rglob("*.png"):
        new = tmp_path / "ppm" / path.parent.name / f"{path.stem}.ppm"
        new.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(new)
    one, two = load_task(f"images:{tmp_path / 'png'}"), load_task(f"images:{tmp_path / 'ppm'}")
    assert one.spec.digest == two.spec.digest


def test_a_folder_behind_a_link(tmp_path):
    folder_of(tmp_path / "link", count=10)
    folder_of(tmp_path / "second", count=10)
    for name in ("cat", "dog"):
        (tmp_path / "link" / name / "second").symlink_to(f"../../second/{name}")
    assert total(load_task(f"images:{tmp_path / 'link'}")) == 40


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Training", "VALIDATION", "Testing"), ("TRAIN", "dev", "Test")]
)
def test_parts_by_the_names_people_give_them(tmp_path, names):
    for name, count in zip(names, (20, 10, 5), strict=True):
        folder_of(tmp_path / name, count=count)
    task = load_task(f"images:{tmp_path}")
    assert task.spec.names == ("cat", "dog")
    assert (task.spec.num_train, task.spec.num_val, task.spec.num_test) == (40, 20, 10)


def test_training_and_testing_are_no_classes(tmp_path):
    folder_of(tmp_path / "Training", count=30)
    folder_of(tmp_path / "Testing", count=10)
    task = load_task(f"images:{tmp_path}")
    assert task.spec.names == ("cat", "dog")
    assert (task.spec.num_train, task.spec.num_val, task.spec.num_test) == (54, 6, 20)


def test_what_is_not_used_is_counted_by_reason(tmp_path, capsys):
    folder_of(tmp_path / "train"), folder_of(tmp_path / "test", count=3), folder_of(tmp_path / "unlabelled", count=2)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("cat 1\n" * 9)
    (tmp_path / "train" / "dog" / "boxes.csv").write_text("1,2,3\n")
    (tmp_path / "train" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "test" / "list.txt").write_text("a")
    task = load_task(f"images:{tmp_path}")
    assert total(task) == 22
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"images:{tmp_path}: left out 8 files: ")
    for part in ("5 beside the folders that are read", "1 hidden", "2 not images (.txt, .csv)"):
        assert part in told


@pytest.mark.parametrize("bits", [16, 12, 10, 8])
def test_grey_levels_of_16_bit_files(tmp_path, bits):
    digits = load_digits()
    for label in (0, 1):
        (tmp_path / str(label)).mkdir()
        for index, image in enumerate(digits.images[digits.target == label][:30]):
            save_png_16(tmp_path / str(label) / f"{index}.png", (image * 15).astype(np.uint16) << (bits - 8))
    task = load_task(f"images:{tmp_path}")
    assert sorted(task.train.inputs.unique().tolist()) == [15 * level for level in range(17)]


def test_oblong_arrays(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(300, 49, 10)).astype(np.float32), np.arange(300) % 3
    np.savez(tmp_path / "k.npz", x_train=x, y_train=y, x_test=x[:60] + 0.01, y_test=y[:60])
    task = load_task(f"arrays:{tmp_path / 'k.npz'}")
    assert task.spec.size == (49, 10)
    np.testing.assert_array_equal(task.test.inputs[:, 0].numpy(), x[:60] + np.float32(0.01))


def test_test_is_a_copy_of_train(tmp_path, capsys):
    folder_of(tmp_path / "train", count=20)
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    task = load_task(f"images:{tmp_path}")
    assert task.spec.num_test == 40
    told = "40 of 40 test samples are also in train: figures on test say nothing"
    assert capsys.readouterr().err == f"images:{tmp_path}: {told}\n"


def test_some_images_again_elsewhere(tmp_path, capsys):
    """Neither the digest nor the parts depend on it."""
    folder_of(tmp_path / "train", count=20)
    folder_of(tmp_path / "test", count=10)
    for index in range(7):
        shutil.copy(tmp_path / "train" / "dog" / f"{index}.png", tmp_path / "test" / "dog" / f"{index}.png")
    load_task(f"images:{tmp_path}")
    assert "7 of 20 test samples are also in train: figures on test will flatter" in capsys.readouterr().err


def test_the_same_pictures_in_two_classes(tmp_path, capsys):
    folder_of(tmp_path, classes=("a",), count=20)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    load_task(f"images:{tmp_path}")
    assert (
        "40 of 40 samples are there in two classes with the same content; there is nothing" in capsys.readouterr().err
    )


def test_one_in_500_of_a_class(tmp_path, capsys):
    random = np.random.default_rng(0)
    y, t = np.zeros(1500, int), np.zeros(400, int)
    y[:3], t[0] = 1, 1
    np.savez(
        tmp_path / "i.npz", x_train=random.random((1500, 8, 9)), y_train=y, x_test=random.random((400, 8, 9)), y_test=t
    )
    task = load_task(f"arrays:{tmp_path / 'i.npz'}")
    assert task.spec.decides == "balanced_accuracy"
    assert (
        "'0' has 1,347 of the 1,349 training samples, '1' has 2: balanced accuracy decides" in capsys.readouterr().err
    )


def test_values_on_another_scale_in_test(tmp_path):
    x = np.random.default_rng(0).random((40, 9, 12)).astype(np.float32)
    y = np.arange(40) % 2
    np.savez(tmp_path / "s.npz", x_train=x[:30] * 16, y_train=y[:30], x_test=x[30:], y_test=y[30:])
    with pytest.raises(BadInput, match="give all parts in the same units"):
        load_task(f"arrays:{tmp_path / 's.npz'}")


def test_an_error_is_one_sentence_and_remarks_come_with_success_only(tmp_path, capsys):
    folder_of(tmp_path, height=12, width=20)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "cat" / "broken.png").write_text("x")
    with pytest.raises(BadInput, match=r"broken\.png"):
        load_task(f"images:{tmp_path}")
    assert capsys.readouterr().err == ""
    load_task(f"images:{tmp_path}", skip_bad=1)
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_folder_in_a_folder_is_found_for_the_user(tmp_path):
    folder_of(Path(tmp_path / "set" / "flowers"))
    with pytest.raises(BadInput, match=r"one class only \('flowers'\).*did you mean images:.*/set/flowers\?"):
        load_task(f"images:{tmp_path / 'set'}")
