"""Image files are known by what is in them, read as they are shown, and what Pillow says of them is one line."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgewright.core.errors import BadInput
from edgewright.task import pixels
from edgewright.task.load import load_task
from edgewright.task.pixels import Kept, decoder, formats, header_of, is_image, remarks_in_one_line, size_of
from made_images import folder_of, noise

WRITTEN = ["TIFF", "PPM", "JPEG2000", "TGA", "PCX", "SGI", "WEBP", "QOI", "ICO", "BMP", "GIF", "PNG", "JPEG", "MPO"]


@pytest.mark.parametrize("kind", [name for name in WRITTEN if name in formats()])
def test_every_format_is_read_whatever_its_name_ends_in(tmp_path, kind):
    for name in ("plain", "data.xyz", f"right.{kind.lower()}", "wrong.png"):
        noise(1, 16, 16).save(tmp_path / name, format=kind)
        assert is_image(tmp_path / name)
        header = header_of(tmp_path / name)
        assert header is not None
        assert header[:3] == (16, 16, False)
        assert decoder(Kept(3, (16, 16)))(tmp_path / name).shape == (3, 16, 16)


def test_formats_that_start_other_programs_are_not_opened(tmp_path):
    noise(1).save(tmp_path / "page", format="EPS")
    assert not {"EPS", "WMF", "GRIB", "HDF5", "BUFR"} & {*formats()}
    assert header_of(tmp_path / "page") is None


def test_what_is_no_image_is_known_and_what_should_be_one_is_a_fault(tmp_path):
    random = np.random.default_rng(0)
    texts = {
        "notes.txt": b"size: 10\nwidth 20\n" * 40,
        "x.json": b'{"P5": 1}',
        "boxes": b"0 0.5 0.5 0.1 0.1\n",
        "numbers.bin": random.bytes(5000),
        "void": b"",
        "x.npy": b"\x93NUMPY\x01\x00",
        "P.csv": b"P1,P2\n1,2\n",
    }
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
        assert header_of(tmp_path / name) is None, name
        assert not is_image(tmp_path / name), name
    for name in ("void.png", "text.jpg", "photo.heic"):
        (tmp_path / name).write_bytes(b"" if name == "void.png" else b"no image at all")
        assert is_image(tmp_path / name)
        with pytest.raises(Image.UnidentifiedImageError):
            header_of(tmp_path / name)


def test_a_format_of_a_plug_in_names_the_plug_in(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "cat" / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 50)
    if "HEIF" in formats():
        pytest.skip("the plug-in is installed")
    with pytest.raises(BadInput, match=r"photo\.HEIC \(.*pillow-heif reads such\)"):
        load_task(f"images:{tmp_path}")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_as_shown(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, kind in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("a.webp", "WEBP"), ("a.tif", "TIFF")):
        noise(1, 9, 14).save(tmp_path / name, format=kind, exif=exif)
        expected = (14, 9) if orientation >= 5 else (9, 14)
        header = header_of(tmp_path / name)
        assert header is not None
        assert size_of(tmp_path / name) == header[:2] == expected


def test_more_frames_than_one_are_told_of_and_thumbnails_are_not(tmp_path, capsys):
    folder_of(tmp_path)
    for name in ("a.gif", "b.webp", "c.png", "d.tif", "e.mpo"):
        more = [noise(2), noise(3)]
        noise(1).save(tmp_path / "cat" / name, save_all=True, append_images=more)
    task = load_task(f"images:{tmp_path}")
    assert task.spec.num_train + task.spec.num_val + task.spec.num_test == 21
    assert "of 4 images with more than one frame the first one is taken" in capsys.readouterr().err


def test_colours_of_all_kinds_become_three_channels(tmp_path):
    picture = Image.fromarray(np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [130, 130, 130]]], np.uint8))
    expected = np.asarray(picture).transpose(2, 0, 1).astype(int)
    for mode, name in [("RGBA", "a.png"), ("P", "b.png"), ("CMYK", "c.tif"), ("YCbCr", "d.tif"), ("LAB", "e.tif")]:
        picture.convert(mode).save(tmp_path / name)
        found = decoder(Kept(3, (2, 2)))(tmp_path / name).astype(int)
        assert abs(found - expected).max() <= (110 if mode == "P" else 20), mode  # a palette of the web's is coarse
    gray = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    for mode, name in [("1", "a.bmp"), ("L", "b.png"), ("LA", "c.png"), ("I;16", "d.png")]:
        deep = Image.fromarray(np.array([[0, 65535], [65535, 0]], np.uint16))
        (deep if mode == "I;16" else gray.convert(mode)).save(tmp_path / name)
        assert np.array_equal(decoder(Kept(1, (2, 2)))(tmp_path / name)[0], np.asarray(gray))


def test_what_pillow_warns_of_is_one_line(tmp_path, capsys, recwarn):
    with remarks_in_one_line("images:set"):
        for _ in range(3):
            warnings.warn("Corrupt EXIF\n data", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert capsys.readouterr().err == "images:set: 4 remarks of Pillow's: Corrupt EXIF data (3); another (1)\n"
    assert not recwarn.list
    with remarks_in_one_line("images:set"):
        pass
    assert capsys.readouterr().err == ""


def test_an_image_near_the_limit_of_pixels_is_one_line(tmp_path, capsys, monkeypatch, recwarn):
    folder_of(tmp_path, height=20, width=20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    load_task(f"images:{tmp_path}")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "decompression bomb" in told[0]
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # above twice the limit it is no image any more
    with pytest.raises(BadInput, match=r"16 unreadable or truncated image files.*exceeds limit"):
        load_task(f"images:{tmp_path}")


def test_a_huge_image_is_decoded_small(tmp_path, monkeypatch):
    """A JPEG of 12 megapixels for a task of 16 px is decoded at an eighth, in less memory than its pixels take."""
    Image.fromarray(np.full((3000, 4000, 3), 77, np.uint8)).save(tmp_path / "photo.jpg")
    seen = []
    plain = pixels._fitted
    monkeypatch.setattr(pixels, "_fitted", lambda image, kept: (seen.append(image.size), plain(image, kept))[1])
    found = decoder(Kept(3, (16, 16)))(tmp_path / "photo.jpg")
    assert seen == [(500, 375)]
    assert (abs(found.astype(int) - 77) <= 1).all()


def test_names_of_any_letters(tmp_path):
    folder = folder_of(tmp_path, ("Kätzchen <b>", "собака"), count=5)
    noise(5).save(folder / "собака" / "日本 &amp;.png")
    task = load_task(f"images:{folder}")
    assert task.spec.names == ("Kätzchen <b>", "собака")
    assert task.spec.num_train + task.spec.num_val + task.spec.num_test == 11
    assert isinstance(task.train.inputs, torch.Tensor)


def test_header_does_not_decode(tmp_path, monkeypatch):
    noise(1, 30, 20).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    assert header_of(tmp_path / "a.png") == (30, 20, False, False, False)
    with pytest.raises(OSError, match=r"truncated|broken"):
        decoder(Kept(3, (30, 20)))(Path(tmp_path / "a.png"))
    assert io.BytesIO(whole).read(4) == b"\x89PNG"
