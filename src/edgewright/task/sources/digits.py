"""The embedded task: scikit-learn's 1,797 handwritten digits of 8x8 pixels."""

from pathlib import Path

import numpy as np
import torch

from edgewright.task.assemble import Described, assemble
from edgewright.task.base import Split, Task, TaskSpec, Wishes
from edgewright.task.group import refuse_wish
from edgewright.task.sizes import fit_size
from edgewright.task.source import Given, Source, given_of

TEST_SEED = 2_023


def digits(wishes: Wishes) -> Task:
    """The digits at 8x8x1: values 0..16 become uint8 0..255 by round(v * 255 / 16).

    The test part (20 %, stratified) depends on a fixed seed, never on the user's, so that results over seeds are
    results on the same test images; val is split off the rest by the user's seed. Left-right flips are off.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test half).
    """
    refuse_wish(wishes.group, "the digits", "in data of your own")
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pixels = np.rint(np.asarray(values) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    images = fit_size(torch.from_numpy(pixels), wishes.resolution)
    found = Described(
        name="digits",
        source="digits",
        names=tuple(str(digit) for digit in range(10)),
        flip=False,
        test_seed=TEST_SEED,
    )
    train = Split(images, torch.from_numpy(np.asarray(labels).astype(np.int64)))
    return assemble(found, wishes, train=train, val=None, test=None)


def given(_place: Path, spec: TaskSpec, part: str | None) -> Given:
    """The digits at the size that the task has them, by default of the test part."""
    return given_of(digits(Wishes(resolution=spec.size)), part, "digits")


SOURCE = Source("digits", "", "", lambda _place, wishes: digits(wishes), given)
