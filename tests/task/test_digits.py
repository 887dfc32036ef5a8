import numpy as np
import torch
from sklearn.datasets import load_digits

from edgewright.task.load import load_task


def test_values_are_scaled_and_every_digit_is_used_once():
    task = load_task("digits")
    ours = torch.cat([task.train.inputs, task.val.inputs, task.test.inputs]).squeeze(1).numpy()
    theirs = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert ours.dtype == np.uint8
    assert ours.max() == 255
    assert sorted(image.tobytes() for image in ours) == sorted(image.tobytes() for image in theirs)
    assert (task.spec.input.shape[0], task.spec.size[0], task.spec.flip) == (1, 8, False)
    assert task.spec.names == tuple("0123456789")
    assert (task.spec.num_train, task.spec.num_val, task.spec.num_test) == (1295, 143, 359)


def test_test_part_is_the_same_for_every_seed():
    one, two = load_task("digits", seed=0), load_task("digits", seed=9)
    assert torch.equal(one.test.inputs, two.test.inputs)
    assert not torch.equal(one.val.inputs, two.val.inputs)
    assert one.spec.digest == two.spec.digest


def test_a_nearest_neighbour_reads_the_test_part():
    task = load_task("digits")
    distance = torch.cdist(task.test.inputs.flatten(1).float(), task.train.inputs.flatten(1).float())
    found = task.train.targets[distance.argmin(1)]
    assert (found == task.test.targets).float().mean() > 0.97  # labels still belong to their images


def test_resolution_and_flip_can_be_asked_for():
    task = load_task("digits", resolution=16, flip=True)
    assert task.train.inputs.shape[1:] == (1, 16, 16)
    assert task.spec.flip
