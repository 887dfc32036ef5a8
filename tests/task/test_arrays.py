import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.core.errors import BadInput
from edgewright.task.load import load_task
from edgewright.task.sources.arrays import channels_first


def content(channels: int = 3, height: int = 10, width: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (24, height, width, channels)).astype(np.uint8),
        "y_train": np.arange(24) % 3,
        "x_test": rng.integers(0, 256, (9, height, width, channels)).astype(np.uint8),
        "y_test": np.arange(9) % 3,
    }


def saved(folder: Path, **arrays) -> str:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return f"arrays:{path}"


def rows(*splits) -> list[bytes]:
    return sorted(image.numpy().tobytes() for split in splits for image in split.inputs)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([1, 3, 4]), st.integers(8, 14), st.integers(0, 99))
def test_nhwc_and_nchw_are_the_same_task(tmp_path, channels, side, seed):
    data = content(channels, side, side, seed)
    one = load_task(saved(tmp_path, **data), seed=seed)
    turned = {key: a.transpose(0, 3, 1, 2) if key[0] == "x" else a for key, a in data.items()}
    two = load_task(saved(tmp_path, **turned), seed=seed)
    assert one.spec == two.spec
    assert torch.equal(one.train.inputs, two.train.inputs)
    assert np.array_equal(one.test.inputs.numpy(), turned["x_test"])
    assert rows(one.train, one.val) == rows(
        type(one.train)(torch.from_numpy(turned["x_train"].copy()), one.train.targets)
    )


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 9, 7, 3), (3, 9, 7)),
        ((5, 3, 9, 7), (3, 9, 7)),
        ((5, 9, 7), (1, 9, 7)),
        ((5, 3, 3, 3), (3, 3, 3)),
        ((5, 3, 9, 3), (3, 3, 9)),  # neither reading is square: NHWC
        ((5, 4, 3, 3), (4, 3, 3)),  # NCHW is square
        ((5, 2, 9, 9), (2, 9, 9)),
        ((5, 9, 9, 2), (2, 9, 9)),
    ],
)
def test_layout_is_inferred(shape, expected):
    assert tuple(channels_first(torch.zeros(shape), "x").shape[1:]) == expected


def test_gray_without_a_channel_axis_is_not_flipped_and_colour_is(tmp_path):
    data = content(1)
    flat = {key: a[..., 0] if key[0] == "x" else a for key, a in data.items()}
    gray = load_task(saved(tmp_path, **flat))
    assert (gray.spec.input.shape[0], gray.spec.flip) == (1, False)
    assert load_task(saved(tmp_path, **flat), flip=True).spec.flip
    assert load_task(saved(tmp_path, **content())).spec.flip
    assert not load_task(saved(tmp_path, **content(), classes=np.array(["a", "b", "c"]))).spec.flip


def test_floats_are_kept_and_other_integers_become_uint8(tmp_path):
    data = content()
    floats = {key: (a / 255).astype(np.float64) if key[0] == "x" else a for key, a in data.items()}
    task = load_task(saved(tmp_path, **floats))
    assert task.train.inputs.dtype == torch.float32
    assert task.spec.input.white == 1
    longs = {key: a.astype(np.int64) for key, a in data.items()}
    assert load_task(saved(tmp_path, **longs)).train.inputs.dtype == torch.uint8


def test_oblong_images_keep_their_shape(tmp_path):
    task = load_task(saved(tmp_path, **content(3, 20, 12)))
    assert task.train.inputs.shape[1:] == (3, 20, 12)
    assert task.spec.size == (20, 12)


def test_given_val_part_is_used(tmp_path):
    data = content()
    task = load_task(saved(tmp_path, **data, x_val=data["x_test"][::-1], y_val=data["y_test"][::-1].reshape(-1, 1)))
    assert (task.spec.num_train, task.spec.num_val, task.spec.num_test) == (24, 9, 9)
    assert torch.equal(task.val.inputs, task.test.inputs.flip(0))
    assert torch.equal(task.val.targets, task.test.targets.flip(0))


def test_class_names(tmp_path):
    assert load_task(saved(tmp_path, **content())).spec.names == ("0", "1", "2")
    named = load_task(saved(tmp_path, **content(), classes=np.array(["cat", "dog", "emu"])))
    assert named.spec.names == ("cat", "dog", "emu")


def spoilt(key: str, index: tuple, value: float) -> dict[str, np.ndarray]:
    data = content()
    data[key] = data[key].astype(np.float32)
    data[key][index] = value
    return {k: a.astype(np.float32) if k[0] == "x" else a for k, a in data.items()}


BAD = [
    (lambda d: d.pop("y_test") is None or d, r"y_test missing; the file has x_train, y_train, x_test"),
    (lambda d: d | {"y_train": d["y_train"][:-1]}, r"x_train .* and y_train \(23,\) disagree"),
    (lambda d: d | {"x_test": d["x_test"][:, :, :9]}, r"parts disagree.*x_train \(3, 10, 10\).*x_test \(3, 10, 9\)"),
    (lambda d: d | {"x_test": d["x_test"].astype(np.float32)}, r"disagree.*uint8.*float32"),
    (lambda d: d | {"y_train": d["y_train"] + 0.5}, r"y_train: labels must be integers, not float64"),
    (lambda d: d | {"y_train": np.eye(3, dtype=int)[d["y_train"]]}, r"one integer an image.*\(24, 3\)"),
    (lambda d: d | {"y_test": d["y_test"] - 1}, r"y_test: 3 labels are negative \(least -1\)"),
    (lambda d: d | {"y_test": d["y_test"] + 1}, r"y_test has class 3, which y_train lacks"),
    (lambda d: d | {"y_train": d["y_train"] * 2, "y_test": d["y_test"] * 2}, r"no image of class 1.*without gaps"),
    (lambda d: d | {"y_train": d["y_train"] + 2**40}, r"out of range"),
    (lambda d: d | {"y_train": d["y_train"] * 0, "y_test": d["y_test"] * 0}, r"one class only"),
    (lambda d: d | {"x_train": d["x_train"].reshape(24, -1)}, r"x_train: images must be .*\(24, 300\)"),
    (lambda d: d | {"x_train": d["x_train"][:0], "y_train": d["y_train"][:0]}, r"x_train is empty"),
    (lambda d: d | {"x_train": d["x_train"].astype(str)}, r"must be uint8 or floating point"),
    (lambda d: d | {"classes": np.array(["a", "b"])}, r"label 2 in y_train is out of range: classes has 2 names"),
    (lambda d: d | {"classes": np.array(["a", "b", "b"])}, r"a name twice"),
    (lambda d: d | {"x_val": d["x_test"]}, r"x_val and y_val come together; only x_val"),
    (lambda d: spoilt("x_train", (0, slice(3), 0, 0), np.nan), r"x_train: 3 of 7200 values are NaN or infinite"),
    (lambda d: spoilt("x_test", (0, 0, 0, 0), np.inf), r"x_test: 1 of 2700 values are NaN or infinite"),
    (lambda d: d | {"y_train": np.r_[np.arange(23) % 2, 2]}, r"at least 2 images.*'2' has 1"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_content_is_one_clear_sentence(tmp_path, spoil, words):
    source = saved(tmp_path, **spoil(content()))
    with pytest.raises(BadInput, match=words) as caught:
        load_task(source)
    assert "data.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


def test_a_pickle_inside_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = io.BytesIO()
    np.save(array, np.array([Bomb()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "evil.npz", "w") as file:
        file.writestr("x_train.npy", array.getvalue())
    with pytest.raises(BadInput, match="pickled Python objects, which are refused"):
        load_task("arrays:evil.npz")
    assert not (tmp_path / "bomb-went-off").exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    import pickle  # noqa: TID251 (made here to see it refused)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match=r"not an \.npz file"):
        load_task("arrays:evil.npz")
    assert not (tmp_path / "bomb-went-off").exists()


def test_truncated_foreign_and_missing_files(tmp_path):
    path = Path(saved(tmp_path, **content()).removeprefix("arrays:"))
    whole = path.read_bytes()
    for size in (0, 1, 2, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BadInput, match=r"not (an|a whole) \.npz file"):
            load_task(f"arrays:{path}")
    damaged = bytearray(whole)
    damaged[3000] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(BadInput, match=r"not a whole \.npz file.*CRC"):
        load_task(f"arrays:{path}")
    with pytest.raises(BadInput, match="no such file"):
        load_task(f"arrays:{tmp_path / 'none.npz'}")


def test_tiny_images_are_enlarged_once_and_it_is_said(tmp_path, capsys):
    task = load_task(saved(tmp_path, **content(height=5, width=7)))
    assert task.spec.size[0] == 8
    assert capsys.readouterr().err.count("the images are 5 px on their shorter side; they are enlarged to 8 px") == 1
    load_task(saved(tmp_path, **content(height=5, width=7)), resolution=16)
    load_task(saved(tmp_path, **content(height=8, width=9)))
    assert capsys.readouterr().err == ""
