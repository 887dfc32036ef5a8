"""Folders of images and masks: all ways to store masks mean the same, and what does not fit is one sentence."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgewright.core.errors import BadInput
from edgewright.task.load import load_task, read_given

HEIGHT, WIDTH = 16, 24
COLOURS = ((10, 20, 30), (200, 0, 0), (0, 200, 0))


def truth(number: int) -> np.ndarray:
    """(H, W): a column of 1 and a row of 2, elsewhere on each image."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, number % WIDTH] = 1
    mask[number % HEIGHT] = 2
    return mask


def photo(number: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def palette(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask, "P")
    image.putpalette([part for colour in COLOURS for part in colour])
    return image


def coloured(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array(COLOURS, np.uint8)[mask])


STORED = {
    "gray": lambda mask: Image.fromarray(mask),
    "palette": palette,
    "16 bits": lambda mask: Image.fromarray(mask.astype(np.uint16)),
    "gray and alpha": lambda mask: Image.fromarray(mask).convert("LA"),
    "colours": coloured,
    "colours and alpha": lambda mask: coloured(mask).convert("RGBA"),
}


def made(folder: Path, store: Any = STORED["gray"], count: int = 12, inside: str = "", ending: str = ".png") -> Path:
    for number in range(count):
        for name, image, end in (("images", photo(number), ".jpg"), ("masks", store(truth(number)), ending)):
            place = folder / inside / name
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"a{number:02}{end}")
    return folder


def all_masks(task) -> torch.Tensor:
    """In the order of where their row is, as the split has shuffled them."""
    masks = torch.cat([task.train.targets, task.val.targets, task.test.targets])
    return masks[torch.argsort((masks == 2).all(2).int().argmax(1))]


@pytest.mark.parametrize("way", list(STORED))
def test_every_way_to_store_masks_means_the_same(way: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "d", STORED[way])
    if "colours" in way:
        lines = [f"class {i} {r} {g} {b}" for i, (r, g, b) in enumerate(COLOURS)]
        (folder / "classes.txt").write_text("\n".join(lines) + "\n\n")
    task = load_task(f"segment:{folder}")
    assert task.spec.names == (("class 0", "class 1", "class 2") if "colours" in way else ("0", "1", "2"))
    assert task.spec.kind == "segmentation" and task.spec.size == (HEIGHT, WIDTH) and task.spec.metric == "mean_iou"
    assert (all_masks(task).numpy() == np.stack([truth(number) for number in range(12)])).all()
    shown = [list(colour) for colour in COLOURS]
    assert task.spec.facts.get("palette") == (shown if way == "palette" or "colours" in way else None)
    assert len(task.train) + len(task.val) + len(task.test) == 12 and len(task.val) and len(task.test)


def test_images_and_masks_stay_together(tmp_path: Path) -> None:
    """The photo of each mask is the one of its name."""
    task = load_task(f"segment:{made(tmp_path / 'd')}")
    for split in (task.train, task.val, task.test):
        for image, mask in zip(split.inputs, split.targets, strict=True):
            number = int((mask == 2).all(1).int().argmax())
            pixels = image.numpy().transpose(1, 2, 0)
            off = [np.abs(pixels - np.asarray(photo(other)).astype(float)).mean() for other in range(12)]
            assert off.index(min(off)) == number  # JPEG of noise: near, not equal


@pytest.mark.parametrize("mode", ["L", "1"])
def test_black_and_white_is_two_classes(mode: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "d", lambda mask: Image.fromarray((mask == 1).astype(np.uint8) * 255).convert(mode))
    task = load_task(f"segment:{folder}")
    assert task.spec.names == ("background", "foreground")
    masks = torch.cat([task.train.targets, task.val.targets, task.test.targets])
    assert masks.unique().tolist() == [0, 1] and (masks.sum((1, 2)) == HEIGHT - 1).all()


@pytest.mark.parametrize(("depth", "ignored"), [(np.uint8, 255), (np.uint16, 255), (np.uint16, 65535)])
def test_what_is_ignored_beside_classes(depth: type, ignored: int, tmp_path: Path) -> None:
    folder = made(tmp_path / "d", lambda mask: Image.fromarray(np.where(mask == 1, ignored, mask // 2).astype(depth)))
    task = load_task(f"segment:{folder}")
    assert task.spec.names == ("background", "foreground")
    assert torch.cat([task.train.targets, task.val.targets]).unique().tolist() == [0, 1, 255]


@pytest.mark.parametrize("layout", ["train/images", "images/train"])
def test_named_parts(layout: str, tmp_path: Path) -> None:
    counts = {"Training": 7, "val": 3, "Testing": 4}
    for part, count in counts.items():
        for number in range(count):
            for kind, image, end in (("images", photo(number), ".bmp"), ("masks", palette(truth(number)), ".png")):
                place = tmp_path / "d" / (f"{part}/{kind}" if layout == "train/images" else f"{kind}/{part}")
                place.mkdir(parents=True, exist_ok=True)
                image.save(place / f"{number}{end}")
    task = load_task(f"segment:{tmp_path / 'd'}")
    assert (len(task.train), len(task.val), len(task.test)) == (7, 3, 4)


def test_sizes_are_kept_whole_at_the_median(tmp_path: Path) -> None:
    for number in range(9):
        size = (50, 30) if number else (80, 40)
        for kind, end in (("images", ".png"), ("masks", ".png")):
            (tmp_path / kind).mkdir(exist_ok=True)
            pixels = np.zeros((size[1], size[0]), np.uint8)
            pixels[:, size[0] // 2 :] = 1
            Image.fromarray(pixels * (200 if kind == "images" else 1)).save(tmp_path / kind / f"{number}{end}")
    task = load_task(f"segment:{tmp_path}")
    assert task.spec.size == (32, 48) and task.spec.inputs[0].shape == (1, 32, 48)
    for split in (task.train, task.val, task.test):
        assert (split.targets[:, :, 24:] == 1).all() and (split.targets[:, :, :24] == 0).all()
        assert (split.inputs[:, 0, :, 26:] == 200).all()  # the whole image too, so that both lie on each other
    assert load_task(f"segment:{tmp_path}", resolution=(16, 40)).spec.size == (16, 40)


def test_samples_for_a_network_that_is_there(tmp_path: Path) -> None:
    folder = made(tmp_path / "d")
    task = load_task(f"segment:{folder}")
    given = read_given(f"segment:{folder}", task.spec)
    assert len(given) == 12 and given.names == {"": task.spec.names}
    assert (given.targets.numpy() == np.stack([truth(number) for number in range(12)])).all()
    assert given.take([0, 3]).shape == (2, 3, HEIGHT, WIDTH) and given.size(3) == (HEIGHT, WIDTH)


def _remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _write(folder: Path, name: str, values: np.ndarray) -> None:
    Image.fromarray(values).save(folder / name)


FAULTS = {
    "no mask": (lambda d: _remove(d, "masks/a03.png"), r"no mask of the same name for .*images/a03.jpg; add it"),
    "no image": (lambda d: _remove(d, "images/a03.jpg"), r"no image of the same name for .*masks/a03.png; add it"),
    "many": (
        lambda d: [_remove(d, f"masks/a0{i}.png") for i in range(9)],
        r"no mask .*a00.jpg, .*a01.jpg, .*a02.jpg and 6 more; add it",
    ),
    "two of a name": (
        lambda d: photo(1).save(d / "images/a03.png"),
        r"a03.png: has the name of a03.jpg; of each name there may be one image",
    ),
    "another size": (
        lambda d: _write(d, "masks/a03.png", truth(3)[:-2]),
        r"masks/a03.png: the mask is 14 x 24 px and its image 16 x 24 px; they must be alike",
    ),
    "outside": (
        lambda d: _write(d, "masks/a03.png", np.full((HEIGHT, WIDTH), 7, np.uint8)),
        r"masks/a03.png: 7 is none of the 3 classes, 0 to 2",
    ),
    "no masks folder": (lambda d: (d / "masks").rename(d / "mask"), r"has images/ but no masks/"),
    "ignored": (
        lambda d: [_write(d, f"masks/a{i:02}.png", np.full((HEIGHT, WIDTH), 255, np.uint8)) for i in range(12)],
        r"every pixel of every mask is 255, which counts for nothing",
    ),
    "truncated": (
        lambda d: (d / "images/a03.jpg").write_bytes((d / "images/a03.jpg").read_bytes()[:200]),
        r"1 unreadable or truncated image file: .*a03.jpg",
    ),
    "mixed": (
        lambda d: coloured(truth(3)).save(d / "masks/a03.png"),
        r"holds numbers where other masks hold colours; store all alike",
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_what_does_not_fit_is_one_sentence(fault: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "d")
    (folder / "classes.txt").write_text("floor\nwall\nsky\n")
    spoil, words = FAULTS[fault]
    spoil(folder)
    with pytest.raises(BadInput, match=words) as told:
        load_task(f"segment:{folder}")
    assert "\n" not in str(told.value)


def test_a_pair_that_cannot_be_read_is_left_out_where_that_is_allowed(tmp_path: Path) -> None:
    folder = made(tmp_path / "d")
    (folder / "images/a03.jpg").write_bytes(b"nothing")
    task = load_task(f"segment:{folder}", skip_bad=1)
    assert len(task.train) + len(task.val) + len(task.test) == 11
    assert 3 not in {int((mask == 2).all(1).int().argmax()) for mask in all_masks(task)}


def test_a_class_that_no_mask_has(tmp_path: Path) -> None:
    folder = made(tmp_path / "d")
    (folder / "classes.txt").write_text("floor\nwall\nsky\nsea\n")
    with pytest.raises(BadInput, match="no pixel of the training masks is 'sea'"):
        load_task(f"segment:{folder}")


def test_colours_without_names_are_classes_while_they_are_few(tmp_path: Path) -> None:
    task = load_task(f"segment:{made(tmp_path / 'd', coloured)}")
    assert task.spec.names == ("#00c800", "#0a141e", "#c80000")  # by their numbers
    made(tmp_path / "e", coloured, ending=".jpg")
    with pytest.raises(BadInput, match=r"the masks have \d+ colours; store them as PNG"):
        load_task(f"segment:{tmp_path / 'e'}")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("floor 10 20 30\nwall 200 0 0\nsky", "2 of 3 classes have a colour"),
        ("floor\nwall\nsky", "the masks are coloured, and no colours are given"),
        ("floor 10 20 30\nwall 200 0 0\nsky 1 1 1", r"the colour \(0, 200, 0\) is none of classes.txt's 3"),
        ("floor 10 20 30\nwall 200 0 0\nwall 0 200 0", "two classes have one name"),
    ],
)
def test_classes_that_do_not_fit_the_colours(lines: str, words: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "d", coloured)
    (folder / "classes.txt").write_text(lines)
    with pytest.raises(BadInput, match=words):
        load_task(f"segment:{folder}")


def test_places_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=re.escape(f"{tmp_path / 'x'}: no such folder")):
        load_task(f"segment:{tmp_path / 'x'}")
    with pytest.raises(BadInput, match=r"has no images/ and masks/; images lie in one"):
        load_task(f"segment:{tmp_path}")
