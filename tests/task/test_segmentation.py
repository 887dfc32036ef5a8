"""Figures, loss and answers of segmentation, each against another way to come to the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.task.kinds.resolve import make_kind
from edgewright.task.kinds.segmentation import IGNORE, Segmentation
from edgewright.task.pictures import Gallery

NAMES = ("sky", "tree", "road")


@pytest.fixture
def kind() -> Segmentation:
    found = make_kind("segmentation", NAMES, {})
    assert isinstance(found, Segmentation)
    return found


def drawn(seed: int = 0, n: int = 5, stride: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs at a stride, unbalanced targets on oblong maps, a tenth of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(n, 3, 12 // stride, 18 // stride, generator=generator)
    targets = (torch.rand(n, 12, 18, generator=generator) ** 3 * 3).long()
    targets[torch.rand(n, 12, 18, generator=generator) < 0.1] = IGNORE
    return outputs, targets.to(torch.uint8)


def shipped(outputs: torch.Tensor, stride: int) -> np.ndarray:
    """The largest output of each place, each place `stride` pixels wide and high."""
    return outputs.argmax(1).numpy().repeat(stride, 1).repeat(stride, 2)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_figures_are_those_over_all_pixels(kind: Segmentation, stride: int, batch: int) -> None:
    """One confusion matrix of the whole part, not a mean over images, whatever the batch."""
    outputs, targets = drawn(stride=stride)
    counts = targets.numpy() != IGNORE
    said, true = shipped(outputs, stride)[counts], targets.numpy()[counts]
    expected = {
        "mean_iou": 100 * jaccard_score(true, said, average="macro"),
        "pixel_accuracy": 100 * accuracy_score(true, said),
        "mean_dice": 100 * f1_score(true, said, average="macro"),
    }
    for metric in kind.metrics:
        state = metric.start()
        for start in range(0, len(outputs), batch):
            state = metric.add(state, outputs[start : start + batch], targets[start : start + batch])
        assert metric.value(state) == pytest.approx(expected[metric.name])
    (deciding, *_) = kind.metrics
    state = deciding.add(deciding.start(), outputs, targets)
    assert deciding.each(state)["iou"] == pytest.approx((100 * jaccard_score(true, said, average=None)).tolist())


def test_a_class_that_is_not_there_is_not_counted(kind: Segmentation) -> None:
    targets = torch.zeros(1, 4, 6, dtype=torch.uint8)
    targets[0, :, :3] = 1
    outputs = functional.one_hot(targets.long(), 3).movedim(-1, 1).float()
    metric = kind.metrics[0]
    assert metric.value(metric.add(metric.start(), outputs, targets)) == 100
    outputs[0, 2, 0, 0] = 9  # said where it is not: now it counts, as nothing
    by_hand = (100 * 12 / 12 + 100 * 11 / 12 + 0) / 3
    assert metric.value(metric.add(metric.start(), outputs, targets)) == pytest.approx(by_hand)


def test_the_loss_by_its_formula(kind: Segmentation) -> None:
    outputs, targets = drawn(stride=1)
    cross, both, shares, there = 0.0, [0.0] * 3, [0.0] * 3, [0.0] * 3
    probabilities = outputs.double().softmax(1)
    pixels = 0
    for n, row, column in np.ndindex(*targets.shape):
        true = int(targets[n, row, column])
        if true == IGNORE:
            continue
        pixels += 1
        p = probabilities[n, :, row, column]
        cross -= float(p[true].log())
        both[true] += float(p[true])
        there[true] += 1
        shares = [shares[c] + float(p[c]) for c in range(3)]
    dice = sum((2 * both[c] + 1) / (shares[c] + there[c] + 1) for c in range(3)) / 3
    assert float(kind.loss(outputs, targets)) == pytest.approx(cross / pixels + 1 - dice, rel=1e-4)


def test_ignored_pixels_teach_nothing(kind: Segmentation) -> None:
    outputs, targets = drawn(stride=1)
    outputs.requires_grad_()
    kind.loss(outputs, targets).backward()
    assert outputs.grad is not None
    ignored = (targets == IGNORE).unsqueeze(1).expand_as(outputs)
    assert not outputs.grad[ignored].any() and (outputs.grad[~ignored] != 0).all()
    nothing = kind.loss(outputs, torch.full_like(targets, IGNORE))
    assert nothing.requires_grad and float(nothing.detach()) == 0


def test_outputs_at_a_stride_learn_at_the_targets_size(kind: Segmentation) -> None:
    outputs, targets = drawn(stride=3)
    large = functional.interpolate(outputs, size=(12, 18), mode="bilinear", align_corners=False)
    torch.testing.assert_close(kind.loss(outputs, targets), kind.loss(large, targets), rtol=1e-4, atol=1e-6)


def test_distillation_of_a_teacher_on_itself_is_nothing(kind: Segmentation) -> None:
    outputs, _ = drawn()
    other, _ = drawn(1)
    assert float(kind.distil(outputs, outputs, 3.0)) == pytest.approx(0, abs=1e-6)
    p, q = (x.double().div(3).softmax(1) for x in (other, outputs))
    expected = (p * (p / q).log()).sum(1).mean()
    assert float(kind.distil(outputs, other, 3.0)) == pytest.approx(float(expected), rel=1e-4)


def test_two_files_agree_as_far_as_their_pixels(kind: Segmentation) -> None:
    outputs, _ = drawn(n=1)
    other = outputs.clone()
    other[0, :, 0, 0] = other[0, :, 0, 0].flip(0) if other[0, :, 0, 0].argmax() != 1 else torch.tensor([9.0, 0, 0])
    places = outputs[0, 0].numel()
    assert kind.same(outputs, outputs).value == 100
    assert kind.same(outputs, other).value == pytest.approx(100 * (1 - 1 / places))


def test_a_guesser_says_the_commonest_class_everywhere(kind: Segmentation) -> None:
    _, targets = drawn()
    outputs = torch.zeros(len(targets), 3, 12, 18)
    outputs[:, 0] = 1
    for metric in kind.metrics:
        got = metric.value(metric.add(metric.start(), outputs, targets))
        assert kind.guess(targets)[metric.name] == pytest.approx(got)


def test_what_nothing_can_be_learned_from_is_refused(kind: Segmentation) -> None:
    _, targets = drawn()
    kind.check(targets, 3, "here")
    with pytest.raises(BadInput, match="here: 5 images are too few to split into 6 parts"):
        kind.check(targets, 6, "here")
    with pytest.raises(BadInput, match="no pixel of the training masks is 'road'"):
        kind.check(targets.where(targets != 2, 0), 1, "here")
    with pytest.raises(BadInput, match="one class only"):
        make_kind("segmentation", ("all",), {}).check(targets, 1, "here")


def test_a_mask_is_written_at_the_images_size_and_read_back(kind: Segmentation, tmp_path: Path) -> None:
    outputs, _ = drawn(n=1, stride=3)
    told = kind.tell(outputs, (24, 36), tmp_path / "photo")
    assert told["mask"] == str(tmp_path / "photo.png")
    with Image.open(told["mask"]) as image:
        assert image.mode == "P"
        numbers = np.asarray(image)
    assert (numbers == shipped(outputs, 6)[0]).all()
    shares = [100 * float((numbers == number).mean()) for number in range(3)]
    assert list(told["percent"].values()) == pytest.approx(shares, abs=1e-3) and tuple(told["percent"]) == NAMES
    assert kind.tell(outputs, (24, 36), None)["mask"] is None and list(tmp_path.iterdir()) == [tmp_path / "photo.png"]
    coloured = make_kind("segmentation", NAMES, {"palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]})
    with Image.open(coloured.tell(outputs, (5, 7), tmp_path / "other")["mask"]) as image:
        assert image.size == (7, 5) and image.getpalette()[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_begin_with_the_worst(kind: Segmentation, channels: int) -> None:
    _, targets = drawn(n=9)
    answers = targets.where(targets != IGNORE, 0)
    answers[4] = (answers[4] + 1) % 3  # all of it wrong
    images = torch.randint(0, 256, (9, channels, 12, 18), dtype=torch.uint8)
    worst, best, bars = kind.pictures(images, targets, answers, 255.0)
    assert isinstance(worst, Gallery) and isinstance(best, Gallery)
    assert worst.items[0].said == "0.0 %" and best.items[0].said == "100.0 %"
    assert len(bars.values) == 3 and all(value < 100 for value in bars.values)
    targets[4] = IGNORE  # of this image nothing is known, so nothing is shown
    worst, _, _ = kind.pictures(images, targets, answers, 255.0)
    assert worst.items[0].said == "100.0 %"
