"""Samples and priors from files; every fault is one sentence that names the line or the array."""

from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import BadInput
from edgewright.device.few.samples import read_priors, read_samples


def test_samples_are_sorted_and_repeats_averaged(tmp_path: Path) -> None:
    path = tmp_path / "pi.csv"
    path.write_text("\ufeffnote, latency_ms , index\nwarm,4.5,7\n,2,3\n,1.5,7\n", encoding="utf-8")
    indices, times = read_samples(path, 8)
    assert indices.tolist() == [3, 7]
    assert times.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pi.csv: no column 'index'"),
        ("index,ms\n1,2\n", "pi.csv: no column 'latency_ms'; the first line must be index,latency_ms"),
        ("index,latency_ms\n", "pi.csv: no samples"),
        ("index,latency_ms\n1,2\n8,2\n", "pi.csv: line 3: index 8 is not in the space, whose rows are 0 to 7"),
        ("index,latency_ms\n-1,2\n", "line 2: index -1 is not in the space"),
        ("index,latency_ms\n1.5,2\n", "line 2: index '1.5' is not an integer"),
        ("index,latency_ms\n1\n", "line 2: latency_ms '' is not a positive number"),
        ("index,latency_ms\n1,nan\n", "line 2: latency_ms 'nan' is not a positive number"),
        ("index,latency_ms\n1,-3\n", "line 2: latency_ms '-3' is not a positive number"),
        ("index,latency_ms\n1,inf\n", "line 2: latency_ms 'inf' is not a positive number"),
        ("index,latency_ms\n1,fast\n", "line 2: latency_ms 'fast' is not a positive number"),
    ],
)
def test_bad_samples(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pi.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_samples(path, 8)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"index,latency_ms\n\xff\xfe,1\n")
    for name, message in (("none.csv", "no such file"), ("b.csv", "not a CSV text"), (".", "cannot be read")):
        with pytest.raises(BadInput, match=message):
            read_samples(tmp_path / name, 8)


def test_priors_of_the_whole_space_and_of_a_part(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.npz", tmp_path / "part.npz"
    np.savez(whole, a=np.array([1, 2, -1, 4]), short=np.ones(3), text=np.array(["x"] * 4), table=np.ones((4, 2)),
             seed=np.arange(4))  # fmt: skip
    np.savez(part, arch_idx=np.array([3, 0], dtype=np.int16), a=np.array([9.0, np.nan]), b=np.array([5.0, 6.0]))
    found = read_priors([whole, part], 4)
    assert list(found) == ["a", "part.npz:a", "b"]
    assert found["a"].tolist() == pytest.approx([1, 2, np.nan, 4], nan_ok=True)
    assert found["part.npz:a"].tolist() == pytest.approx([np.nan, np.nan, np.nan, 9], nan_ok=True)
    assert found["b"].tolist() == pytest.approx([6, np.nan, np.nan, 5], nan_ok=True)
    assert read_priors([], 4) == {}


def test_bad_priors(tmp_path: Path) -> None:
    np.savez(tmp_path / "short.npz", a=np.ones(3))
    np.savez(tmp_path / "outside.npz", arch_idx=np.array([0, 4]), a=np.ones(2))
    np.savez(tmp_path / "objects.npz", a=np.array([None] * 4))
    (tmp_path / "text.npz").write_text("a,b\n")
    np.save(tmp_path / "single.npy", np.ones(4))
    for name, message in (
        ("none.npz", "no such file"),
        ("short.npz", "no array of the space's length, 4"),
        ("outside.npz", "arch_idx holds 0 to 4; the space's rows are 0 to 3"),
        ("objects.npz", "pickled Python objects"),
        ("text.npz", "text.npz: "),
        ("single.npy", "a single array"),
    ):
        with pytest.raises(BadInput, match=message):
            read_priors([tmp_path / name], 4)
