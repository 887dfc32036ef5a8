"""Files of named arrays: read whole, or refused in one sentence."""

import numpy as np
import pytest

from edgewright.core.errors import BadInput
from edgewright.core.npz import opened_npz, read_npz, row_key


def test_what_was_saved_is_read(tmp_path):
    saved = {"a": np.arange(6).reshape(2, 3), "b": np.array(["x", "yz"])}
    np.savez(tmp_path / "t.npz", **saved)
    found = read_npz(tmp_path / "t.npz")
    assert list(found) == ["a", "b"]
    assert all((found[name] == saved[name]).all() for name in saved)


def test_each_fault_is_one_sentence(tmp_path):
    whole = tmp_path / "whole.npz"
    np.savez(whole, a=np.arange(5000))
    np.savez(tmp_path / "objects.npz", a=np.array([1, None]))
    np.save(tmp_path / "one.npy", np.arange(3))
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:3000])
    spoiled = bytearray(whole.read_bytes())
    spoiled[2000] ^= 255
    (tmp_path / "spoiled.npz").write_bytes(spoiled)
    for name, words in (
        ("nowhere.npz", "no such file"),
        ("objects.npz", "pickled Python objects, which are refused"),
        ("one.npy", "a single array"),
        ("cut.npz", "not a whole .npz file"),
        ("spoiled.npz", "not a whole .npz file"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            read_npz(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_users_mistake_inside_the_block_stays_what_it_is(tmp_path):
    np.savez(tmp_path / "t.npz", a=np.ones(2))
    with pytest.raises(BadInput, match="mine"), opened_npz(tmp_path / "t.npz"):
        raise BadInput("mine")


def test_rows_are_named_by_integers_of_the_same_length():
    arrays = {"x": np.ones(2), "arch_idx": np.array([0.0, 1.0]), "b_arch_idx": np.array([3, 1]), "arch": np.arange(2)}
    assert row_key(arrays, 2) == "b_arch_idx"
    assert row_key(arrays, 3) is None
