"""Images of more than 8 bits: all that they hold is read, and scaled by what all of them hold together."""

import numpy as np
import pytest
import torch
from PIL import Image

from edgewright.task import deep
from edgewright.task.image_files import read_images
from edgewright.task.load import load_task
from edgewright.task.pixels import formats
from made_images import save_png_16, save_tiff_16

RAMP = np.arange(16).reshape(4, 4)


def album(folder, bits: int, channels: tuple[int, ...] = ()):
    """Two classes of ramps whose largest value needs `bits`, in files of 16 bits."""
    for number, name in enumerate("ab"):
        (folder / name).mkdir(parents=True)
        for index in range(6):
            values = np.random.default_rng(10 * number + index).integers(0, 2**bits, (10, 12, *channels))
            values.flat[0] = 2**bits - 1
            save_png_16(folder / name / f"{index}.png", values)
    return folder


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_the_upper_8_of_the_bits_that_are_used_are_kept(tmp_path, bits, channels, capsys):
    """A plain reading: the numbers shifted by what the largest of the set leaves."""
    task = load_task(f"images:{album(tmp_path, bits, channels)}", resolution=(10, 12))
    assert task.spec.input.deep_white == 2**bits - 1
    expected = [(deep.numbers(path, formats()) >> (bits - 8)).reshape(10, 12, -1).transpose(2, 0, 1)
                for path in sorted(tmp_path.rglob("*.png"))]  # fmt: skip
    found = torch.cat([task.train.inputs, task.val.inputs, task.test.inputs])
    assert sorted(x.numpy().tobytes() for x in found) == sorted(x.astype(np.uint8).tobytes() for x in expected)
    told = capsys.readouterr().err
    assert f"the largest value of 12 images of more than 8 bits a channel is {2**bits - 1}, so" in told
    assert ("256 levels are kept" in told) == (bits > 8)


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_all_16_bits_are_read(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, *channels)).astype(np.uint16)
    save_png_16(tmp_path / "a.png", values)
    assert np.array_equal(deep.numbers(tmp_path / "a.png", formats()), values)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_16_bits_of_coloured_tiffs_are_read_in_either_byte_order(tmp_path, order, packed):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    save_tiff_16(tmp_path / "a.tif", values, order, packed)
    assert np.array_equal(deep.numbers(tmp_path / "a.tif", formats()), values)


def test_transparency_is_no_brightness(tmp_path):
    values = np.full((4, 4, 4), 1000)
    values[..., 3] = 65535
    save_png_16(tmp_path / "a.png", values)
    assert deep.span(tmp_path / "a.png", formats()) == (1000, 1000, False)
    shown = np.asarray(deep.in_bytes(deep.numbers(tmp_path / "a.png", formats()), 1023.0))
    assert shown[0, 0].tolist() == [250, 250, 250, 255]


def test_a_network_reads_a_dark_image_as_its_task_did(tmp_path):
    """White belongs to the task: an image alone whose largest value is small stays dark."""
    task = load_task(f"images:{album(tmp_path / 'set', 12)}")
    save_png_16(tmp_path / "dark.png", np.full((10, 12), 160))
    assert (read_images([tmp_path / "dark.png"], task.spec) == 160 >> 4).all()
    Image.fromarray(np.full((10, 12), 160, np.uint8)).save(tmp_path / "eight.png")  # of 8 bits: white is 255
    assert (read_images([tmp_path / "eight.png"], task.spec) == 160).all()


def test_without_knowledge_the_upper_byte_is_taken_as_before():
    values = np.array([[200 * 256 + 7, 255, 65535]], np.uint16)
    assert np.asarray(deep.in_bytes(values, deep.WHITE)).tolist() == [[200, 0, 255]]


def test_fractions_up_to_1_and_numbers_below_0(tmp_path, capsys):
    for name, values in (("unit", RAMP / 20 + 0.01), ("signed", RAMP * 100.0 - 400)):
        for label in "ab":
            (tmp_path / name / label).mkdir(parents=True)
            for index in range(5):
                shifted = values + index / 1000 + (label == "b") * values.max() / 5
                Image.fromarray(shifted.astype(np.float32)).save(tmp_path / name / label / f"{index}.tif")
    unit = load_task(f"images:{tmp_path / 'unit'}", resolution=8)
    assert unit.spec.input.deep_white == 1
    assert len(unit.train.inputs.unique()) > 12  # Pillow's own conversion makes all of them 0
    signed = load_task(f"images:{tmp_path / 'signed'}", resolution=8)
    assert signed.spec.input.deep_white == 2047
    assert "values below 0, in 10 of them, become black" in capsys.readouterr().err


def test_deep_images_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.zeros((6, 6), np.uint16)
    upright[:3] = 60_000
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "turned.tif", exif=exif)
    task = load_task(f"images:{album(tmp_path / 'set', 16)}", resolution=8)
    spec = task.spec.model_copy(update={"inputs": (task.spec.input.model_copy(update={"shape": (1, 6, 6)}),)})
    spec = spec.model_copy(update={"inputs": (spec.input.model_copy(update={"mean": (0.0,), "std": (1.0,)}),)})
    for name in ("turned.png", "turned.tif"):
        assert np.array_equal(read_images([tmp_path / name], spec)[0, 0].numpy(), (upright >> 8).astype(np.uint8)), name


@pytest.mark.parametrize(
    ("top", "fractions", "white"),
    [(0, False, 255), (200, False, 255), (256, False, 511), (3840, False, 4095), (61440, False, 65535),
     (70_000, False, 131_071), (1.0, True, 1), (1.0, False, 255), (1.5, True, 255)],
)  # fmt: skip
def test_white_by_hand(top, fractions, white):
    assert deep.white_of([deep.Span(0, 0, False), deep.Span(0, top, fractions)]) == white
