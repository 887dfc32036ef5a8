"""Weights in a file: what is read, and what is refused by its first bytes."""

import pickle  # noqa: TID251  what must be refused
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgewright.core.errors import BadInput
from edgewright.core.weights import pickled, read_weights


def _length_of_the_head(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_head_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, protocol: int) -> None:
    """The bytes 80 02 open a pickle, and also a safetensors file whose head is 640 bytes long (896, 1152, 1408)."""
    path, asked = tmp_path / "small.safetensors", 0x80 + 256 * protocol
    for padding in range(asked):
        save_file({"w": torch.ones(2)}, path, {"note": "x" * padding})
        if _length_of_the_head(path) == asked:
            break
    assert path.read_bytes()[:2] == bytes((0x80, protocol))
    assert torch.equal(read_weights(path)["w"], torch.ones(2))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_any_protocol_is_refused_by_its_bytes(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "named.safetensors"
    path.write_bytes(pickle.dumps({"w": [1.0]}, protocol))
    with pytest.raises(BadInput, match="a pickle, which could run"):
        read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_refused_whatever_its_name(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "named.safetensors"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)  # noqa: TID251
    assert pickled(path)
