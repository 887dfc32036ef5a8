import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from edgewright.core.errors import BadInput
from edgewright.task.load import load_task


class Items(Dataset):
    def __init__(self, items, classes=None):
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def pixels(count: int = 30, side: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def test_tensors_arrays_and_pictures_are_the_same_task():
    x, y = pixels(), [index % 3 for index in range(30)]
    first = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    tasks = [
        load_task(TensorDataset(first, torch.tensor(y))),
        load_task(Items(list(zip(x, y, strict=True)))),
        load_task(Items([(Image.fromarray(image), np.int64(label)) for image, label in zip(x, y, strict=True)])),
    ]
    for task in tasks:
        assert torch.equal(task.train.inputs, tasks[0].train.inputs)
        assert task.spec.digest == tasks[0].spec.digest
        assert (task.spec.input.shape[0], task.spec.size[0], task.spec.flip) == (3, 9, True)
    assert (tasks[0].spec.num_test, tasks[0].spec.num_val) == (6, 3)


def test_a_pair_is_train_and_test():
    x = torch.from_numpy(pixels(20).transpose(0, 3, 1, 2).copy())
    task = load_task((TensorDataset(x[:12], torch.arange(12) % 2), TensorDataset(x[12:], torch.arange(8) % 2)))
    assert torch.equal(task.test.inputs, x[12:])
    assert len(task.train) + len(task.val) == 12


def test_names_of_signs_turn_flips_off():
    items = [(image, index % 2) for index, image in enumerate(pixels(12))]
    assert load_task(Items(items, ["cat", "dog"])).spec.names == ("cat", "dog")
    assert not load_task(Items(items, ["a", "b"])).spec.flip


def test_unequal_pictures_are_cropped_to_the_median_side():
    items = [(np.full((10 + index % 5, 40, 3), index, np.uint8), index % 2) for index in range(20)]
    assert load_task(Items(items)).train.inputs.shape[1:] == (3, 12, 12)


def test_gray_floats_are_kept():
    task = load_task(TensorDataset(torch.rand(12, 8, 8), torch.arange(12) % 2))
    assert task.train.inputs.dtype == torch.float32
    assert (task.spec.input.shape[0], task.spec.flip, task.spec.input.white) == (1, False, 1)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


GOOD = np.zeros((8, 8, 3), np.uint8)
BAD = [
    (Stream(), "not map-style"),
    (Items([]), "is empty"),
    ((Items([(GOOD, 0)]),), r"must be \(train, test\)"),
    (Items([GOOD]), r"item 0 is not a pair"),
    (Items([("x", 0)]), "is a str, not a tensor"),
    (Items([(GOOD, 0), (GOOD, 0.5)]), r"item 1: the label is 0.5, not an integer"),
    (Items([(GOOD, -1)]), "negative"),
    (Items([(GOOD[0, 0], 0)]), "has shape"),
    (Items([(torch.full((1, 8, 8), torch.nan), 0)]), "64 values that are NaN"),
    (Items([(GOOD, 0), (GOOD[..., 0], 1)]), "the images disagree"),
    (Items([(GOOD, 0)] * 4), "one class only"),
    (Items([(GOOD, 0), (GOOD, 2)] * 4), "no image of class 1"),
    (
        Items([(GOOD, 0), (GOOD, 2)] * 4, ["a", "b"]),
        "label 2 in the training data is out of range: classes has 2 names",
    ),
    ((Items([(GOOD, 0), (GOOD, 1)] * 4), Items([(GOOD, 2)])), "has class 2, which the training data lack"),
    ((Items([(GOOD, 0), (GOOD, 1)] * 4), Items([(GOOD[..., 0], 1)])), "train .* and test .* disagree"),
]


@pytest.mark.parametrize(("data", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_datasets(data, words):
    with pytest.raises(BadInput, match=words):
        load_task(data)


@pytest.mark.parametrize("source", ["digit", "images:", "arrays:", "flowers", ""])
def test_unknown_sources_are_told_the_choices(source):
    with pytest.raises(BadInput, match=r"unknown task.*'digits', 'images:DIR'"):
        load_task(source)


def test_a_bare_folder_is_told_its_prefix(tmp_path):
    with pytest.raises(BadInput, match="write 'images:"):
        load_task(str(tmp_path))
