"""What flatters, and what means nothing, is told or refused when data is read."""

import numpy as np
import pytest
import torch

from edgewright.core.errors import BadInput
from edgewright.task import checks
from edgewright.task.base import Split
from edgewright.task.kinds.classification import Classification

KIND = Classification(("a", "b"), {})


def split(seeds: list[int], targets: list[int] | None = None, side: int = 5) -> Split:
    """Samples that differ where their seeds do."""
    maps = [torch.randint(0, 256, (2, side, 4), generator=torch.Generator().manual_seed(one)) for one in seeds]
    return Split(torch.stack(maps).to(torch.uint8), torch.tensor(targets or [one % 2 for one in seeds]))


def remarks(*parts: Split) -> list[str]:
    return list(checks.repeated(KIND, *parts))


def test_nothing_is_said_of_samples_that_differ():
    assert remarks(split([1, 2, 3]), split([4, 5]), split([6, 7])) == []


def test_repetitions_are_counted():
    train, val = split([1, 2, 3, 4]), split([5, 1])
    assert remarks(train, val, split([7, 2, 5, 8])) == [
        "2 of 4 test samples are also in train: figures on test will flatter",
        "1 of 2 samples of val are also in train",
    ]
    assert remarks(train, split([5]), split([2, 3, 2])) == [
        "3 of 3 test samples are also in train: figures on test say nothing"
    ]


def test_one_pixel_makes_a_sample_another():
    train = split([1, 2])
    test = split([1, 2])
    test.inputs[0, 1, 4, 3] ^= 1
    assert remarks(train, split([9]), test) == ["1 of 2 test samples are also in train: figures on test will flatter"]


def test_the_same_content_in_two_classes():
    assert remarks(split([1, 2, 1], [0, 1, 1]), split([3]), split([4])) == [
        "2 of 5 samples are there in two classes with the same content"
    ]
    assert remarks(split([1, 1, 2], [0, 1, 0]), split([2], [1]), split([1]))[-1] == (
        "5 of 5 samples are there in two classes with the same content; there is nothing to tell them apart by"
    )


def test_all_inputs_of_a_sample_count():
    image, depth = split([1, 1]).inputs, split([3, 4]).inputs
    train, test = (
        Split({"a": image, "b": depth}, torch.tensor([0, 1])),
        Split({"a": image[:1], "b": depth[1:]}, torch.tensor([1])),
    )
    assert remarks(train, split([5]), test)[0].startswith("1 of 1 test samples")
    other = Split({"a": image[:1], "b": depth[1:].flip(1)}, torch.tensor([1]))
    assert remarks(train, Split(other.inputs, other.targets), split([6])) == []


def test_data_of_one_value_is_remarked_on():
    (told,) = checks.constant(Split(torch.full((3, 1, 4, 5), 7.0), torch.tensor([0, 1, 0])))
    assert told == "every number of the training inputs is 7; there is nothing to learn from"
    nearly = torch.zeros(2000, 1, 4, 5)
    nearly[1999, 0, 3, 4] = 1
    assert list(checks.constant(Split(nearly, torch.zeros(2000)))) == []


@pytest.mark.parametrize(("factor", "refused"), [(16, True), (1 / 255, True), (3, False), (1 / 3, False)])
def test_parts_in_other_units_are_refused(factor, refused):
    train = Split(torch.rand(20, 1, 6, 5) * 10, torch.zeros(20))
    parts = {"train": train, "val": None, "test": Split(torch.rand(9, 1, 6, 5) * 10 * factor, torch.zeros(9))}
    if not refused:
        return checks.refuse_other_scales(parts, "here")
    with pytest.raises(BadInput, match=r"here: the numbers of test reach .*, those of train 9\.9.*the same units"):
        checks.refuse_other_scales(parts, "here")
    return None


def test_one_outlier_and_one_dark_image_are_no_other_units():
    train = torch.rand(20, 1, 6, 5)
    bright = train.clone()
    bright[0, 0, 0, 0] = 1000
    dark = torch.full((1, 1, 6, 5), 0.9)
    for test in (bright, dark):
        checks.refuse_other_scales(
            {"train": Split(train, torch.zeros(20)), "test": Split(test, torch.zeros(len(test)))}, "here"
        )


def test_unbalanced_training_samples_are_told_with_their_counts():
    kind = Classification(("common", "rare", "rarer"), {})
    targets = torch.from_numpy(np.repeat([0, 1, 2], [997, 2, 1]))
    (told,) = kind.remarks(targets)
    assert told.startswith("'common' has 997 of the 1,000 training samples, 'rarer' has 1: balanced accuracy decides")
    assert kind.remarks(torch.tensor([0, 0, 1, 2, 1])) == []
