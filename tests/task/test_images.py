import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgewright.core.errors import BadInput
from edgewright.task import pixels
from edgewright.task.image_files import expand_images, read_images
from edgewright.task.load import load_task


def paint(path: Path, height: int = 40, width: int = 50, mode: str = "RGB", value: int = 100, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 40, (height, width, 4)) + value
    array = noise.astype(np.uint8)
    picture = {"RGB": array[..., :3], "L": array[..., 0], "RGBA": array}[mode]
    Image.fromarray(np.ascontiguousarray(picture)).save(path, **options)
    return path


def album(folder: Path, classes=("cat", "dog", "emu"), count: int = 10, **options) -> Path:
    for number, name in enumerate(classes):
        for index in range(count):
            paint(folder / name / f"{index}.png", value=10 + 60 * number, **options)
    return folder


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return sorted(x.numpy().tobytes() for x in one) == sorted(x.numpy().tobytes() for x in two)


def test_a_plain_folder_is_split_and_labels_follow_the_folders(tmp_path):
    task = load_task(f"images:{album(tmp_path)}")
    assert task.spec.names == ("cat", "dog", "emu")
    assert (task.spec.num_train, task.spec.num_val, task.spec.num_test) == (21, 3, 6)
    assert (task.spec.input.shape[0], task.spec.size[0], task.spec.flip) == (3, 40, True)
    for part in (task.train, task.val, task.test):
        level = part.inputs.float().mean((1, 2, 3))
        assert torch.equal(part.targets, ((level - 30) / 60).round().long())
    again, other = load_task(f"images:{tmp_path}"), load_task(f"images:{tmp_path}", seed=1)
    assert torch.equal(again.train.inputs, task.train.inputs)
    assert not torch.equal(other.test.inputs, task.test.inputs)
    assert other.spec.digest == task.spec.digest


def test_the_digest_sees_a_changed_file(tmp_path):
    before = load_task(f"images:{album(tmp_path)}").spec.digest
    paint(tmp_path / "cat" / "3.png", value=200)
    assert load_task(f"images:{tmp_path}").spec.digest != before


def test_named_parts_are_used_as_named(tmp_path):
    album(tmp_path / "train")
    album(tmp_path / "val", count=2)
    album(tmp_path / "test", count=4)
    task = load_task(f"images:{tmp_path}")
    assert (task.spec.num_train, task.spec.num_val, task.spec.num_test) == (30, 6, 12)


@pytest.mark.parametrize("name", ["val", "test"])
def test_one_named_part_is_the_test_part(tmp_path, name):
    album(tmp_path / "train")
    album(tmp_path / name, count=4)
    task = load_task(f"images:{tmp_path}")
    assert (task.spec.num_train, task.spec.num_val, task.spec.num_test) == (27, 3, 12)


def test_train_alone_is_split(tmp_path):
    album(tmp_path / "train")
    task = load_task(f"images:{tmp_path}")
    assert (task.spec.num_train, task.spec.num_val, task.spec.num_test) == (21, 3, 6)


def test_pixels_equal_a_plain_reading(tmp_path):
    album(tmp_path, height=40, width=40)
    task = load_task(f"images:{tmp_path}")
    plain = [np.array(Image.open(path)).transpose(2, 0, 1) for path in sorted(tmp_path.rglob("*.png"))]
    every = torch.cat([task.train.inputs, task.val.inputs, task.test.inputs])
    assert same(every, torch.from_numpy(np.stack(plain)))
    x = task.train.inputs.double()
    np.testing.assert_allclose(task.spec.input.mean, x.mean((0, 2, 3)).numpy())


def test_oblong_images_are_cropped_in_the_middle(tmp_path):
    picture = np.zeros((16, 48, 3), np.uint8)
    picture[:, 16:32] = 255
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    spec = load_task(f"images:{album(tmp_path / 'set', height=16, width=16)}").spec
    assert (read_images([path], spec) == 255).all()


@pytest.mark.parametrize(("side", "expected"), [(5, 8), (8, 8), (27, 27), (32, 32), (45, 48), (100, 104), (300, 224)])
def test_resolution_is_inferred(tmp_path, side, expected):
    task = load_task(f"images:{album(tmp_path, count=3, height=side, width=side)}")
    assert task.spec.size == (expected, expected)
    assert task.train.inputs.shape[-2:] == (expected, expected)


def test_gray_folders_have_one_channel_and_one_colour_image_makes_three(tmp_path):
    album(tmp_path, mode="L")
    assert load_task(f"images:{tmp_path}").spec.input.shape[0] == 1
    paint(tmp_path / "cat" / "colour.png")
    assert load_task(f"images:{tmp_path}").spec.input.shape[0] == 3


def test_signs_are_not_flipped(tmp_path):
    album(tmp_path, classes=("0", "1"))
    assert not load_task(f"images:{tmp_path}").spec.flip
    assert load_task(f"images:{tmp_path}", flip=True).spec.flip


def test_all_kinds_are_read_and_hidden_files_are_not(tmp_path):
    for name in ("a.jpg", "b.JPEG", "c.png", "d.bmp", "e.webp", "f.gif"):
        paint(tmp_path / "cat" / name)
        paint(tmp_path / "dog" / "deeper" / name, value=180)
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"no image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    task = load_task(f"images:{tmp_path}")
    assert task.spec.num_train + task.spec.num_val + task.spec.num_test == 12


def test_exif_orientation_transparency_and_16_bits(tmp_path):
    spec = load_task(f"images:{album(tmp_path / 'set', height=16, width=16)}").spec
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8] = 250  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter before it is shown
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_images([tmp_path / "turned.png"], spec)[0].numpy(), upright.transpose(2, 0, 1))
    clear = np.zeros((16, 16, 4), np.uint8)
    clear[8:, :, 3] = 255  # black below, transparent above
    Image.fromarray(clear).save(tmp_path / "clear.png")
    seen = read_images([tmp_path / "clear.png"], spec)[0]
    assert (seen[:, :8] == 255).all()
    assert (seen[:, 8:] == 0).all()
    Image.fromarray(np.full((16, 16), 200 * 256 + 7, np.uint16)).save(tmp_path / "deep.png")
    assert (read_images([tmp_path / "deep.png"], spec) == 200).all()


def test_a_big_jpeg_is_resized_well(tmp_path):
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    picture = np.broadcast_to(ramp[None, :, None], (640, 640, 3)).copy()
    Image.fromarray(picture).save(tmp_path / "ramp.jpg", quality=95)
    spec = load_task(f"images:{album(tmp_path / 'set', height=16, width=16)}").spec
    seen = read_images([tmp_path / "ramp.jpg"], spec)[0, 0].float()
    expected = torch.from_numpy(ramp.reshape(16, 40).mean(1)).float()
    assert (seen - expected).abs().max() < 4  # an antialiased mean over 40 pixels


def test_big_folders_lie_in_a_file(tmp_path, monkeypatch):
    album(tmp_path)
    before = load_task(f"images:{tmp_path}")
    monkeypatch.setattr(pixels, "IN_MEMORY_BYTES", 0)
    after = load_task(f"images:{tmp_path}")
    assert torch.equal(before.train.inputs, after.train.inputs)
    assert torch.equal(before.test.inputs, after.test.inputs)
    assert before.spec == after.spec


def spoil(path: Path, share: float = 0.5) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def test_unreadable_images_are_listed_or_skipped(tmp_path):
    album(tmp_path)
    for index in range(6):
        spoil(tmp_path / "cat" / f"{index}.png")
    (tmp_path / "dog" / "0.png").write_bytes(b"not an image")
    with pytest.raises(BadInput, match=r"7 unreadable or truncated") as caught:
        load_task(f"images:{tmp_path}", skip_bad=6)
    assert str(caught.value).count(".png") == 5
    assert "and 2 more" in str(caught.value)
    task = load_task(f"images:{tmp_path}", skip_bad=7)
    assert task.spec.num_train + task.spec.num_val + task.spec.num_test == 23
    for part in (task.train, task.val, task.test):
        level = part.inputs.float().mean((1, 2, 3))
        assert torch.equal(part.targets, ((level - 30) / 60).round().long())


def test_bad_folders(tmp_path):
    def said(folder: Path, words: str) -> None:
        with pytest.raises(BadInput, match=words) as caught:
            load_task(f"images:{folder}")
        assert str(tmp_path) in str(caught.value)

    said(tmp_path / "none", "no such folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    said(empty, "no images in sub-folders")
    paint(empty / "loose.png")
    said(empty, r"no images.*1 lie in it directly")
    said(empty / "loose.png", "not a folder")
    said(album(tmp_path / "one", classes=("cat",)), r"one class only \('cat'\)")
    said(album(tmp_path / "few", count=2), r"at least 3 images.*'cat' has 2")
    (album(tmp_path / "hole") / "gnu").mkdir()
    said(tmp_path / "hole", "class 'gnu' has no images")
    album(tmp_path / "odd" / "train")
    album(tmp_path / "odd" / "test", classes=("cat", "dog"))
    said(tmp_path / "odd", "train/ and test/ must agree, but test/ has no 'emu'")
    album(tmp_path / "extra" / "train")
    album(tmp_path / "extra" / "val", classes=("cat", "dog", "emu", "gnu"))
    said(tmp_path / "extra", "train/ has no 'gnu'")
    album(tmp_path / "half" / "test")
    said(tmp_path / "half", "no train/")


def lit(spec, white: float):
    return spec.model_copy(update={"inputs": (spec.input.model_copy(update={"white": white}),)})


def test_reading_for_prediction(tmp_path):
    task = load_task(f"images:{album(tmp_path / 'set')}")
    folder = tmp_path / "set" / "cat"
    files = expand_images([folder, tmp_path / "set" / "dog" / "1.png"])
    assert [path.name for path in files] == [f"{index}.png" for index in range(10)] + ["1.png"]
    raw = read_images([folder, tmp_path / "set" / "dog" / "1.png"], task.spec)
    assert raw.shape == (11, 3, 40, 50)
    known = {x.numpy().tobytes() for part in (task.train, task.val, task.test) for x in part.inputs}
    assert all(x.numpy().tobytes() in known for x in raw)
    unit = read_images([folder], lit(task.spec, 1.0))
    assert torch.allclose(unit * 255, raw[:10].float())


def test_bad_files_for_prediction(tmp_path):
    spec = load_task(f"images:{album(tmp_path / 'set')}").spec
    (tmp_path / "text.jpg").write_text("no image")
    for paths, words in [
        ([tmp_path / "none.png"], "none.png: no such file"),
        ([tmp_path / "text.jpg"], r"1 unreadable.*text.jpg \(not an image of a known kind\)"),
        ([], "no images given"),
    ]:
        with pytest.raises(BadInput, match=words):
            read_images(paths, spec)
    (tmp_path / "void").mkdir()
    with pytest.raises(BadInput, match="no images in this folder"):
        read_images([tmp_path / "void"], spec)
    with pytest.raises(BadInput, match="unknown scale"):
        read_images([tmp_path / "set"], lit(spec, 0.0))
